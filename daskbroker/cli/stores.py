"""Commands on whole stores: sealing, checking, indexes, copying, configurations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import BadDocument, StoreDamaged
from ..core.printable import counted, printable
from ..progress import progress_bar
from .app import app, every_run, making_store, name_failed, note_empty, say, say_json, search
from .options import AsJson, FailEmpty, Full, Limit, Place, Since, Store, Terms, Until, Words
from .serve import is_tiled, take_over

if TYPE_CHECKING:
    from ..broker import DataBroker
    from ..header import Header
    from ..work.checking import Check


@app.command()
def seal(
    words: Words = None,
    db: Store = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    keep_journal: Annotated[
        bool,
        typer.Option(
            "--keep-journal", help="Keep the events in the journal, for databroker to read."
        ),
    ] = False,
    peek: Annotated[
        bool,
        typer.Option("--peek", help="Read shapes and dtypes from detector files, and store them."),
    ] = False,
    as_json: AsJson = False,
    fail_empty: FailEmpty = False,
) -> None:
    """Pack journalled events into columnar chunks, run by run; may be interrupted and repeated."""
    from ..connect import connect

    place, terms = _place_and_terms(words or [])
    made, peeked = 0, 0
    with every_run(), connect(place or db, create=False) as broker:
        results = search(broker, terms, full, since, until)
        note_empty(len(results), fail=fail_empty)
        for header in progress_bar(results, " runs"):
            try:
                made += broker.seal(header, keep_journal=keep_journal)
                peeked += broker.peek(header) if peek else 0
            except (BadDocument, StoreDamaged) as error:
                name_failed(header.uid, error)
        if not (terms or full or since or until or keep_journal):
            made += broker.seal()  # what killed processes left, also of no run
        if as_json:
            told = {"store": broker.uri, "runs": len(results), "chunks": made}
            say_json({**told, "keys_looked_into": peeked} if peek else told)
            return
        chunks, runs = counted(made, "chunk"), counted(len(results), "run")
        say(f"{chunks} made of {runs} in {broker.uri}")
        if peek:
            say(f"{peeked:,} detector keys looked into")


@app.command()
def check(
    words: Words = None,
    db: Store = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    files: Annotated[
        bool, typer.Option("--files", help="Also read the frames in detector files.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per damage.")
    ] = False,
    fail_empty: FailEmpty = False,
) -> None:
    """Find and name damaged data without changing anything; status 1 if there are any."""
    from ..connect import connect
    from ..work.checking import check as check_runs

    place, terms = _place_and_terms(words or [])
    with (
        connect(place or db, create=False, mode="r") as broker,
        progress_bar(None, " runs") as bar,
    ):
        chosen = bool(terms or full or since or until)
        runs = search(broker, terms, full, since, until) if chosen else broker

        def progress(checked: Check) -> None:
            bar.update(checked.runs - bar.n)

        checked = check_runs(runs, files=files, progress=progress)
        for damage in checked:
            if as_json:
                say_json(damage.to_dict())
            else:
                say(f"damaged: {damage}")
        bar.close()
        say(f"{checked} in {broker.uri}", err=as_json)
    if checked.damages:
        raise typer.Exit(1)
    note_empty(checked.runs, fail=fail_empty)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Folder of the backup; must not exist.")],
    db: Store = None,
) -> None:
    """Copy an embedded store in a state of one instant, also while it is written."""
    from ..connect import connect
    from ..work.backup import backup as back_up

    with connect(db, create=False, mode="r") as broker:
        report = back_up(broker, folder)
        say(f"{report} from {broker.uri}")
    for damage in report.damages:
        say(f"failed: {damage}", err=True)
    if report.damages:
        raise typer.Exit(1)


def _place_and_terms(words: list[str]) -> tuple[str | None, list[str]]:
    """Split arguments into a place, unless the first has the form ``key=value``, and terms."""
    if words and ("://" in words[0] or "=" not in words[0]):
        return words[0], words[1:]
    return None, words


@app.command()
def index(
    place: Place = None,
    db: Store = None,
    peek: Annotated[
        bool,
        typer.Option(
            "--peek/--no-peek",
            help="Also read shapes and dtypes from the detector files of all runs.",
        ),
    ] = True,
) -> None:
    """Make missing indexes of a database, and store shapes and dtypes of its detector files."""
    from ..connect import connect

    with connect(place or db, create=False) as broker:
        made = broker.header_source.store.create_indexes()
        for source in broker.event_sources:
            made += source.store.create_indexes()
        for name in made:
            say(name)
        say(f"{len(made):,} indexes made in {broker.uri}")
        if peek:
            _look_into_all(broker)


def _look_into_all(broker: DataBroker) -> None:
    """Read shapes and dtypes from the detector files of all runs."""
    peeked = 0
    for header in progress_bar(broker(), " runs"):
        try:
            peeked += broker.peek(header)
        except (BadDocument, StoreDamaged) as error:
            name_failed(header.uid, error)
    say(f"{peeked:,} detector keys looked into")


@app.command()
def copy(
    source: Annotated[
        str, typer.Argument(help="Store to copy from, or tiled+http://HOST/… of a Tiled server.")
    ],
    target: Annotated[str, typer.Argument(help="Store to copy into.")],
    terms: Terms = None,
    full: Full = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    files: Annotated[
        Path | None, typer.Option(help="Also copy detector files, to below this folder.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare runs that the target already has.")
    ] = False,
    fail_empty: FailEmpty = False,
) -> None:
    """Copy runs between any two stores and verify each; may be interrupted and repeated."""
    if is_tiled(source):
        words = {"--full": full, "--since": since, "--until": until}
        given = {**words, "--files": files, "--verify": verify or None}
        raise typer.Exit(take_over([source], target, terms=terms, limit=limit, given=given))
    from ..connect import connect
    from ..work.copying import copy as copy_runs

    with (
        every_run(),
        connect(source, create=False, mode="r") as origin,
        making_store(target) as into,
    ):
        runs = search(origin, terms, full, since, until)[:limit]
        note_empty(len(runs), fail=fail_empty)
        bar = progress_bar(reversed(runs), " runs", of=runs)

        def progress(header: Header, documents: int) -> None:
            bar.set_postfix_str(printable(f"{header.uid[:8]}: {documents:,} documents"))

        report = copy_runs(bar, into, files=files, verify=verify, progress=progress)
        say(f"{report}, from {origin.uri} into {into.uri}")
        for uid, reason in report.failed.items():
            name_failed(uid, reason)


@app.command()
def config(
    folders: Annotated[
        bool, typer.Option("--folders", help="Show the folders that are searched.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """List the configurations that can be opened by name."""
    from ..configuration import list_configurations, search_folders, unreadable_files

    if folders:
        for folder in search_folders():
            if as_json:
                say_json({"folder": str(folder), "exists": folder.exists()})
            else:
                say(f"{folder}{'' if folder.exists() else '  (not there)'}")
        return
    seen: set[str] = set()
    for found in list_configurations():
        hidden = found.name in seen
        seen.add(found.name)
        if as_json:
            told = {"name": found.name, "kind": found.form, "place": found.target()}
            say_json({**told, "file": str(found.file), "hidden": hidden})
        else:
            note = "  (hidden by the first of this name)" if hidden else ""
            say(f"{found.name:<20} {found.form:<10} {found.target()}  {found.file}{note}")
    if not seen:
        text = "there is no configuration; --folders shows where they are looked for"
        say(text, err=as_json)
    for message in unreadable_files():
        say(f"not readable: {message}", err=True)
