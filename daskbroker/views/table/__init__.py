"""Streams as lazy Dask DataFrames: their partitions, how these are read, and export to files."""
