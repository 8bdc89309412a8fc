"""Look into detector files for shape and dtype, and share and remember what is found."""
