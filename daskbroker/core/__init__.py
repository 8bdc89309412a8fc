"""Values and contracts: documents, chunks, queries, errors. No Dask, no store."""
