"""Handlers of HDF5 files."""
