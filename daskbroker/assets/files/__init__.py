"""Paths of detector files from documents, limits on what may be read, and checks of sizes."""
