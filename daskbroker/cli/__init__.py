"""The command line: ``daskbroker`` and ``python -m daskbroker``.

A command imports what it needs when it runs, so that ``--help`` and completion are quick.
"""

from . import completion, listen, plots, runs, serve, showing, stores, tail, transform
from .app import app, main

__all__ = [
    "app",
    "completion",
    "listen",
    "main",
    "plots",
    "runs",
    "serve",
    "showing",
    "stores",
    "tail",
    "transform",
]
