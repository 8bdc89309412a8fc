"""A run's external frames as references to bytes of its files, in formats that xarray opens.

=================== ==============================================================================
:mod:`.grids`       from the places of frames to one regular grid of chunks
:mod:`.decoding`    a cell read by such a grid, as who opens it will
:mod:`.collecting`  the streams of a run: grids that were compared, and what is in the store
:mod:`.locations`   names of files, ``to=``
:mod:`.inline`      what is in the store, as arrays of Zarr's format 2
:mod:`.kerchunk`    kerchunk's format, JSON and Parquet
:mod:`.icechunk`    repositories of Icechunk
=================== ==============================================================================
"""
