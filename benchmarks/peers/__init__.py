"""Benchmarks beside databroker, Tiled and VirtualiZarr: ``python -m benchmarks.peers``."""
