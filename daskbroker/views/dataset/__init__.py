"""A stream as a lazy xarray Dataset along ``time``: what is in memory, what is cut, how it is read.

=============== ======================================================================
:mod:`.opening`   from a plan to a Dataset
:mod:`.variables` which variables there are: what each is read from, dimensions, attributes
:mod:`.loading`   which of them are in memory
:mod:`.dropping`  which rows are left out, as a cell of theirs is missing
:mod:`.cutting`   where Dask cuts the others along ``time``
:mod:`.graphs`    Dask's arrays, and their tasks
:mod:`.columns`   how some rows of a column are read
:mod:`.rows`      where the rows are
:mod:`.grids`     grid scans as grids, scans along a motor
:mod:`.restoring` Datasets of streams that were made of Datasets
:mod:`.trees`     Datasets as a tree
=============== ======================================================================
"""

from .opening import dataset
from .trees import tree, tree_of_runs

__all__ = ["dataset", "tree", "tree_of_runs"]
