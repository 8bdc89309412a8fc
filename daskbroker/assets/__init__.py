"""References to detector files, and what is in them."""
