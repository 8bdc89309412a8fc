"""Values and contracts: documents, chunks, queries, errors. Needs neither Dask nor a store."""
