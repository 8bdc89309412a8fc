"""Errors are daskbroker's own and also those that users of databroker expect."""

from __future__ import annotations

import pytest

from daskbroker.core import errors


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


def test_all_errors_are_daskbrokers():
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert all(issubclass(error, errors.DaskbrokerError) for error in found)
    assert all(error.__doc__ for error in found)
