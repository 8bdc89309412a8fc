"""A run as its stream of documents: read ahead, filled, in pages, or followed while it grows."""
