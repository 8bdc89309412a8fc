"""The error for a stream that a run does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .errors import StreamNotFound
from .name_lists import listed


def no_stream(
    run: str,
    name: Any,
    there: Iterable[str],
    data_keys: Collection[str] = (),
    argument: str | None = None,
) -> StreamNotFound:
    """Return the error for a stream that a run does not have.

    Parameters
    ----------
    run
        Uid of the run.
    name
        Stream that was requested.
    there
        Names of the streams of the run.
    data_keys
        Data keys of the run, to recognize a data key that was given as a stream.
    argument
        Name of the argument for data keys; ``fields=`` by default.
    """
    return StreamNotFound(
        f"run {run!r} has no stream {name!r:.200}; it has: {listed(sorted(there), name)}"
        f"{meant_fields(name, data_keys, argument)}"
    )


def meant_fields(name: Any, data_keys: Collection[str] = (), argument: str | None = None) -> str:
    """Return a hint for the message about a missing stream that fields may have been meant.

    It is empty if the name is a text, but not a data key.
    """
    if isinstance(name, str) and name not in data_keys:
        return ""
    if not isinstance(name, Collection):
        return ". A stream is named by text"
    fields = [name] if isinstance(name, str) else name
    why = f"{name!r} is a data key" if isinstance(name, str) else "A stream is named by text"
    how = f"given as fields={fields!r:.200}" if argument is None else f"chosen with {argument}"
    return f". {why}: data keys are {how}"
