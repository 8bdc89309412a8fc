"""``dask daskbroker``: the command line of daskbroker as a command of Dask's.

Dask imports this module for each of its commands, so that ``dask config list`` and
``dask config get daskbroker`` know the settings of daskbroker.
"""

from __future__ import annotations

import sys

import click


@click.command(
    "daskbroker",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Bluesky data: the same as the command daskbroker."""
    from .cli import main

    sys.argv = ["daskbroker", *arguments]
    main()
