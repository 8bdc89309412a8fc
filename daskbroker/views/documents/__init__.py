"""Runs as streams of documents: read ahead, filled, in pages, or followed while they grow."""
