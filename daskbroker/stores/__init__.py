"""Stores: where documents are kept. :mod:`.contract` says what one has to do."""
