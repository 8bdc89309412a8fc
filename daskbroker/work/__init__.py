"""Things that are done with runs: mapping, reprocessing, copying, ingesting, exporting."""
