"""Streams as lazy xarray Datasets along ``time``: what is in memory, how the rest is cut and read.

======================= ===================================================================
:mod:`.lazy_dataset`    from a plan to a Dataset
:mod:`.variables`       which variables there are: their sources, dimensions and attributes
:mod:`.loading`         which of them are in memory
:mod:`.dropping`        which rows are left out because one of their cells is missing
:mod:`.cutting`         where Dask cuts the other variables along ``time``
:mod:`.graphs`          Dask arrays, and their tasks
:mod:`.column_sources`  how some rows of a column are read
:mod:`.array_sources`   columns of arrays, fields of them, and other dtypes
:mod:`.dataset_rows`    the chunks that rows come from
:mod:`.grids`           grid scans as grids, and scans along a motor
:mod:`.restoring`       Datasets of streams that were made of Datasets
:mod:`.frame_locations` where in detector files cells lie
:mod:`.trees`           Datasets as a tree
======================= ===================================================================
"""
