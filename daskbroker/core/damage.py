"""Findings of a check: what is damaged, and where."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .printable import printable


@dataclass(frozen=True, slots=True)
class Damage:
    """One problem that a check has found.

    Attributes
    ----------
    problem
        Description of the problem.
    run
        Uid of the run, or None if the problem belongs to no run.
    stream, key
        Name of the stream; data key, or field of a document. None if it belongs to none.
    path
        File of the store, collection of a database, or detector file.
    """

    problem: str
    run: str | None = None
    stream: str | None = None
    key: str | None = None
    path: str | None = None

    def within(self, **context: str | None) -> Damage:
        """Return the same problem with those parts of its place filled in that are None."""
        unknown = {name: value for name, value in context.items() if getattr(self, name) is None}
        return replace(self, **unknown)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        # The message of an error that was caught may name some of this itself.
        named = [
            f"{name} {value!r}"
            for name in ("run", "stream", "key")
            if (value := getattr(self, name)) is not None
            and f"{name} {value!r}" not in self.problem
        ]
        where = ", ".join(named)
        path = f" ({self.path})" if self.path and self.path not in self.problem else ""
        text = f"{self.problem}{path}"
        return printable(f"{where}: {text}" if where else text)
