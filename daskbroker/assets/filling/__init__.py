"""Filling: replace references by external data, block by block."""
