"""Tiled: the command that serves a store to clients, and the import of runs from servers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError
from ..core.printable import counted
from ..tiled import SCHEME
from .app import app, making_store, name_failed, pair_of, parsed_value, say
from .options import Place, Store


@app.command()
def serve(
    place: Place = None,
    db: Store = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8000,
) -> None:
    """Serve a store to clients of Tiled on this machine, with a key that is printed.

    The key is new each time, unless $TILED_SINGLE_USER_API_KEY holds one.
    """
    _check_installed()
    from ..connect import connect
    from ..tiled.serving import Server

    with connect(place or db, create=False, mode="r") as broker:
        server = Server(broker, port)
        say(f"serving {broker.uri}")
        say(server.url)
        server.run()


def _check_installed() -> None:
    if find_spec("tiled") is None or find_spec("bluesky_tiled_plugins") is None:
        raise ConfigError("this needs Tiled: pip install 'daskbroker[tiled]'")


def address_of_path(path: Path) -> str:
    """Return the text of an argument, with the second slash of an address that Path drops."""
    return re.sub(r"^(tiled\+https?:)/", r"\1//", str(path))


def is_tiled(place: str) -> bool:
    """Return whether a place is a Tiled server."""
    return place.startswith((f"{SCHEME}http://", f"{SCHEME}https://"))


def take_over(
    urls: Sequence[str],
    target: str | None,
    *,
    terms: Sequence[str] | None = None,
    limit: int | None = None,
    given: Mapping[str, Any] | None = None,
) -> int:
    """Take runs from Tiled servers, print what was lost, and return the exit status."""
    if not urls:
        return 0
    for option, value in (given or {}).items():
        if value is not None:
            raise ConfigError(f"{option} does not go with a Tiled server; key=value and --limit do")
    _check_installed()
    from tiled.queries import Eq

    from ..progress import progress_bar
    from ..tiled.taking import open_tiled, take_runs

    failed = 0
    for url in urls:
        with (
            open_tiled(url) as catalog,
            making_store(target) as broker,
            progress_bar(None, " runs") as bar,
        ):
            for key, value in map(pair_of, terms or ()):
                catalog = catalog.search(Eq(f"start.{key}", parsed_value(value)))
            report = take_runs(broker, catalog, limit=limit, progress=lambda uid: bar.update())
            bar.close()
            say(f"{report}, from {url.partition('?')[0]} into {broker.uri}")
            for what, runs in report.lost.items():
                say(f"not kept by Tiled, of {counted(len(runs), 'run')}: {what}", err=True)
            for uid, reason in report.failed.items():
                name_failed(uid, reason)
            failed = failed or int(bool(report.failed))
    return failed
