"""Where detector files are: from documents to paths, which may be read, and their sizes."""
