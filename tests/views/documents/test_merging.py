"""Merging by time: an order that a plain sort gives, too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.core.documents import Document
from daskbroker.views.documents.merging import MOST_WAITING, by_time

Named = tuple[str, Document]


def track_of(name: str, times: list[float | None]) -> list[Named]:
    """A descriptor at 0 and an event at each time; None is a stream_datum."""
    docs: list[Named] = [("descriptor", Document(uid=name, time=0.0))]
    for place, time in enumerate(times):
        if time is None:
            docs.append(("stream_datum", Document(uid=f"{name}{place}")))
        else:
            docs.append(("event", Document(uid=f"{name}{place}", time=time)))
    return docs


def sorted_by_time(tracks: list[list[Named]]) -> list[Named]:
    """All documents with the latest time of their track so far, stream_datums with the next one."""
    keyed: list[tuple[float, int, Named]] = []
    for number, track in enumerate(tracks):
        latest = float("-inf")
        for place, (name, doc) in enumerate(track):
            following = [d["time"] for n, d in track[place:] if n != "stream_datum"]
            if following and name == "stream_datum":
                keyed.append((max(latest, following[0]), number, (name, doc)))
                continue
            latest = max(latest, doc.get("time", latest))
            keyed.append((latest, number, (name, doc)))
    return [pair for *_, pair in sorted(keyed, key=lambda item: item[:2])]


times = st.lists(st.none() | st.integers(-3, 9).map(float), max_size=12)


@given(st.lists(times, max_size=4))
def test_documents_are_sorted_by_time(many: list[list[float | None]]) -> None:
    tracks = [track_of(name, some) for name, some in zip("abcd", many, strict=False)]
    merged = list(by_time([iter(track) for track in tracks]))
    expected = sorted_by_time(tracks) if len(tracks) > 1 else [pair for t in tracks for pair in t]
    assert [doc["uid"] for _, doc in merged] == [doc["uid"] for _, doc in expected]


def test_one_document_of_each_track_is_taken_ahead() -> None:
    taken: list[str] = []

    def noted(track: list[Named]) -> Any:
        for name, doc in track:
            taken.append(doc["uid"])
            yield name, doc

    tracks = [track_of("a", [1.0, 3.0, 5.0]), track_of("b", [2.0, 4.0])]
    merged = by_time([noted(track) for track in tracks])
    given_so_far = [next(merged)[1]["uid"] for _ in range(4)]
    assert given_so_far == ["a", "b", "a0", "b0"]
    assert taken == ["a", "b", "a0", "b0", "a1"]


def test_stream_datums_without_events_are_not_kept_in_memory() -> None:
    """They are merged at the time of the document before them."""
    taken = 0

    def files() -> Any:
        nonlocal taken
        yield "descriptor", Document(uid="b", time=2.0)
        for number in range(10 * MOST_WAITING):
            taken += 1
            yield "stream_datum", Document(uid=f"b{number}")

    merged = by_time([iter(track_of("a", [1.0, 3.0])), files()])
    assert [next(merged)[1]["uid"] for _ in range(4)] == ["a", "a0", "b", "b0"]
    assert taken <= MOST_WAITING
    rest = [doc["uid"] for _, doc in merged]
    assert rest == [*(f"b{number}" for number in range(1, 10 * MOST_WAITING)), "a1"]


def test_an_error_comes_after_the_documents_before_it() -> None:
    def failing() -> Any:
        yield from track_of("b", [2.0])
        raise ValueError("damaged")

    merged = by_time([iter(track_of("a", [1.0, 3.0])), failing()])
    found = [next(merged)[1]["uid"] for _ in range(4)]
    assert found == ["a", "b", "a0", "b0"]
    with pytest.raises(ValueError, match="damaged"):
        list(merged)
