"""References to detector files, and reading of what is in them."""
