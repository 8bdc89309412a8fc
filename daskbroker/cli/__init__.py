"""The command line: ``daskbroker`` and ``python -m daskbroker``."""

from . import reprocessing, runs, stores
from .app import app, main

__all__ = ["app", "main", "reprocessing", "runs", "stores"]
