"""Representations of runs: text for a terminal, HTML for a notebook, plots.

==================== ===================================================================
:mod:`.facts`        facts of a run in a list, from its start and stop documents
:mod:`.listing`      lists of runs, as text and as HTML
:mod:`.header_list`  list of headers that is shown as such a list of runs
:mod:`.runs_frame`   lists of runs, and other metadata, as a pandas DataFrame
:mod:`.frame_text`   such a DataFrame as text, or as plain values
:mod:`.page`         page of one run
:mod:`.streams`      streams of a run: their rows, keys, units, configuration
:mod:`.tree`         documents as folded trees
:mod:`.hints`        plot described by the hints of a run
:mod:`.readings`     data that a plot of a run needs
:mod:`.thumbnails`   small pictures, within bounds of size and time
:mod:`.plots`        plots by matplotlib
:mod:`.markup`       HTML in which all text from documents is escaped
:mod:`.text_columns` text in columns, fitted to a terminal
==================== ===================================================================

All text from documents goes through :func:`daskbroker.core.printable.printable`.
"""
