"""External data in place of references, block by block."""
