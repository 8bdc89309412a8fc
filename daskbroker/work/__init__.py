"""Batch work on runs: checking, copying, exporting, ingesting, listening, reprocessing, backups."""
