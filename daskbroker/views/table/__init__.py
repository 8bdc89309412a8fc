"""A stream as a lazy Dask DataFrame: its partitions, their reading, and files made of it."""
