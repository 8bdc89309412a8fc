"""Errors of pymongo are told in one line: which store, which document, what to do."""

from __future__ import annotations

import pymongo
import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from daskbroker.core.errors import BadDocument, StoreError, StoreReadOnly, StoreUnavailable
from daskbroker.stores.mongodb.server_errors import inserting, store_error

STORE = "mongodb://host/db"


def refused(code):
    return BulkWriteError(
        {"writeErrors": [{"code": code, "errmsg": "no"}], "writeConcernErrors": []}
    )


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (AutoReconnect("gone"), StoreUnavailable, " does not answer{about}, or not in time; "),
        (OperationFailure("no primary", 10107), StoreUnavailable, " does not answer{about}, or"),
        (refused(91), StoreUnavailable, " does not answer{about}, or not in time"),
        (OperationFailure("no", 13), StoreReadOnly, ": the server refuses access{about}; check"),
        (OperationFailure("no", 18), StoreReadOnly, ": the server refuses access{about}; check"),
        (OperationFailure("odd", 1), StoreError, "{about}: odd"),
        (refused(1), StoreError, "{about}: no"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_says_what_is_wrong_and_with_which_document(error, kind, said):
    for what, about in [("", ""), ("event 'e1'", " (event 'e1')")]:
        found = store_error(STORE, what, error)
        assert type(found) is kind
        assert str(found).startswith(STORE + said.format(about=about))


@pytest.mark.parametrize("error", [OperationFailure("no", 10334), refused(2), refused(17280)])
def test_what_cannot_be_held_is_a_bad_document_if_there_is_one(error):
    found = store_error(STORE, "event 'e1'", error)
    assert type(found) is BadDocument
    assert str(found) == "event 'e1': MongoDB cannot hold it: no"
    assert type(store_error(STORE, "", error)) is StoreError


def test_what_the_server_itself_refuses(mongod_uri):
    with (
        pymongo.MongoClient(mongod_uri) as client,
        pytest.raises(OperationFailure, match="no such command") as caught,
    ):
        client.get_database("db").command("no such command")
    assert (
        str(store_error(STORE, "", caught.value)) == f"{STORE}: no such command: 'no such command'"
    )


def test_long_errors_are_cut_in_the_middle_and_repetitions_left_out():
    def shown(error):
        return str(store_error(STORE, "", error)).removeprefix(f"{STORE}: ")

    text = "".join(chr(ord("a") + number % 26) for number in range(300))
    assert shown(OperationFailure(text[:280], 1)) == text[:280]
    assert shown(OperationFailure(text, 1)) == f"{text[:138]} … {text[-138:]}"
    assert shown(OperationFailure("dup key, full error: {'a': 1}", 1)) == "dup key"
    told = store_error(STORE, "", ServerSelectionTimeoutError("refused, Timeout: 10s, Topology"))
    assert str(told).endswith("the server is back (refused)")


def test_only_an_insert_speaks_of_its_document():
    gone = AutoReconnect("gone")
    assert "Try again when the server is back (gone)" in str(store_error(STORE, "", gone))
    with inserting():
        assert "inserting it again, when the server" in str(store_error(STORE, "", gone))
    assert "inserted" not in str(store_error(STORE, "", gone))
