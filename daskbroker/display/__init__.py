"""What people see of runs: text for a terminal, HTML for a notebook, plots.

================== =====================================================================
:mod:`.facts`      what is told of a run in a list: from its start and stop
:mod:`.listing`    lists of runs, as text and as HTML
:mod:`.header_list` a list of headers that shows itself so
:mod:`.frames`     the same, and other metadata, as a pandas frame
:mod:`.frame_text` such a frame as text, or as plain values
:mod:`.page`       the page of one run
:mod:`.streams`    what a run has of streams: their rows, keys, units, configuration
:mod:`.tree`       documents as folded trees
:mod:`.hints`      which plot a run's hints ask for
:mod:`.readings`   what a plot needs of a run, read
:mod:`.thumbnails` small pictures, within bounds of size and time
:mod:`.plots`      plots, by matplotlib
:mod:`.markup`     HTML in which whatever comes from documents is escaped
:mod:`.columns`    text in columns, fitted to a terminal
================== =====================================================================

Whatever comes from a document goes through :func:`daskbroker.core.printable.printable`.
"""
