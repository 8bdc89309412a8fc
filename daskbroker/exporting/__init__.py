"""Export of runs to files that other tools read; see :func:`daskbroker.exporting.runs.export`."""
