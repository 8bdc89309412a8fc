"""Errors are daskbroker's own and also those that users of databroker expect."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daskbroker.core import errors
from daskbroker.core.bad_runs import BadRun, warn_of_bad


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.RunNotFound, KeyError),
        (errors.StreamNotFound, KeyError),
        (errors.FieldNotFound, KeyError),
        (errors.AmbiguousUID, ValueError),
        (errors.OffsetOutOfRange, IndexError),
        (errors.BadDocument, ValueError),
        (errors.DuplicateUID, errors.BadDocument),
        (errors.UnknownReference, errors.BadDocument),
        (errors.UnknownReference, LookupError),
        (errors.BadQuery, ValueError),
        (errors.BadRecording, ValueError),
        (errors.ConfigError, ValueError),
        (errors.BadField, errors.FieldNotFound),
        (errors.BadField, errors.BadQuery),
        (errors.StoreNotFound, FileNotFoundError),
        (errors.StoreExists, FileExistsError),
        (errors.StoreReadOnly, PermissionError),
        (errors.StoreFull, OSError),
        (errors.FillError, RuntimeError),
        (errors.HandlerNotFound, KeyError),
        (errors.BadRunWarning, UserWarning),
    ],
)
def test_each_is_also_the_builtin_one(error, builtin):
    assert issubclass(error, builtin)
    assert issubclass(error, errors.DaskbrokerError)
    assert str(error("a 'quoted' text\n")) == "a 'quoted' text\\n"


def test_long_names_lose_their_middle():
    error = errors.StoreDamaged(f"run {'u' * 10**6!r}, stream {'s' * 900!r}, key 'x': is damaged")
    assert str(error).startswith("run 'uuuu")
    assert str(error).endswith(f"uuuu', stream {'s' * 900!r}, key 'x': is damaged")
    assert len(str(error)) < 2000
    with pytest.warns(errors.BadRunWarning, match="^run 'long") as caught:
        warn_of_bad(BadRun("long\x1b" * 10**6, "some words " * 10**5))
    text = str(caught[0].message)
    assert len(text) <= 4000
    assert text.isprintable()


def test_all_errors_are_daskbrokers():
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert all(issubclass(error, errors.DaskbrokerError) for error in found)
    assert all(error.__doc__ for error in found)


IMPORTING = """
import subprocess
import sys, threading
from daskbroker.core.errors import this_worker
from daskbroker.workers import current_client
importing = threading.Thread(target=__import__, args=("distributed",))
importing.start()
partly = 0
while importing.is_alive():
    module = sys.modules.get("distributed")
    partly += module is not None and not hasattr(module, "get_worker")
    assert this_worker() is None
assert partly, "the module was never seen while it was imported"
assert current_client() is None
"""


def test_no_worker_while_another_thread_imports_distributed():
    command = [sys.executable, "-c", IMPORTING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
