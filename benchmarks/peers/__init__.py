"""Side by side with databroker 1.2.5 and suitcase-mongo: ``python -m benchmarks.peers``."""
