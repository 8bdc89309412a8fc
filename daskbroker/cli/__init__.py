"""The command line: ``daskbroker`` and ``python -m daskbroker``."""

from . import plots, runs, stores, transform
from .app import app, main

__all__ = ["app", "main", "plots", "runs", "stores", "transform"]
