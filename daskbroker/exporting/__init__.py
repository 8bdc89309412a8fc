"""Runs as plain files that other tools read; see :func:`daskbroker.exporting.runs.export`."""
