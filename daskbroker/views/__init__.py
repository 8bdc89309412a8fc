"""Views of chunks: lazy tables, datasets and document streams."""
