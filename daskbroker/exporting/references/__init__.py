"""References to the bytes of a run's external frames, in formats that xarray opens.

=================== ==============================================================================
:mod:`.frame_grid`  conversion of the byte ranges of frames to one regular grid of chunks
:mod:`.decoding`    reading of a cell by its references alone, as any other reader will
:mod:`.collecting`  arrays of a run's streams: compared grids of frames, and values of the store
:mod:`.locations`   URLs of files, ``to=``
:mod:`.file_states` sizes and times of files, to notice those that changed since
:mod:`.inline`      values of the store as arrays of Zarr's format 2
:mod:`.kerchunk`    kerchunk's format, JSON and Parquet
:mod:`.icechunk`    repositories of Icechunk
=================== ==============================================================================
"""
