"""What ``docs/performance.md`` is made of: ``python -m benchmarks.report``."""
