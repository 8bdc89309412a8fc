"""The command line: ``daskbroker`` and ``python -m daskbroker``."""

from . import runs, stores, transform
from .app import app, main

__all__ = ["app", "main", "runs", "stores", "transform"]
