"""The command line: ``daskbroker`` and ``python -m daskbroker``.

A command imports what it needs when it runs, so that ``--help`` and completion are quick.
"""

from . import completion, listen, looking, plots, runs, serve, stores, tail, transform
from .app import app, main

__all__ = [
    "app",
    "completion",
    "listen",
    "looking",
    "main",
    "plots",
    "runs",
    "serve",
    "stores",
    "tail",
    "transform",
]
