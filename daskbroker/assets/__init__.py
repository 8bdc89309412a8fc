"""References to detector files, and reading of these files."""
