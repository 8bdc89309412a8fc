"""Measurements and pictures of ``docs/performance.md``: ``python -m benchmarks.report``."""
