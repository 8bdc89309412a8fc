"""Merge the documents of several descriptors by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heapreplace

from ...core.clock import seconds_of
from ...core.documents import Document, NamedDocument

_Timed = tuple[float, str, Document]
"""``(time in POSIX seconds, name, document)``."""
MOST_WAITING = 1000
"""Maximum number of stream_datums of a track that wait for the document that has their time."""


def by_time(tracks: Sequence[Iterator[NamedDocument]]) -> Iterator[NamedDocument]:
    """Yield the documents of all tracks by time; each track keeps its order.

    A stream_datum has the time of the next descriptor or event of its track if that is at most
    `MOST_WAITING` stream_datums later, else of the one before it. Of equal times, that of the
    earlier track comes first. One document of each track is taken ahead, with the stream_datums
    before it.

    Parameters
    ----------
    tracks
        For each descriptor an iterator of ``(name, document)``: the descriptor, its events, and its
        stream_datums.
    """
    # One descriptor, as most runs have, needs no merging.
    return tracks[0] if len(tracks) == 1 else _merged([_timed(track) for track in tracks])


def _timed(track: Iterator[NamedDocument]) -> Iterator[_Timed]:
    """Yield a track with times that never decrease, so that merging keeps its order."""
    latest = float("-inf")
    waiting: list[Document] = []
    for name, doc in track:
        if name == "stream_datum":
            waiting.append(doc)
            # Streams of files alone have no events, and any number of stream_datums.
            if len(waiting) == MOST_WAITING:
                yield from _stream_datums(waiting, latest)
            continue
        time = doc["time"] if name == "event" else seconds_of(doc)
        # A clock that was set back must not change the order within a descriptor.
        if time > latest:
            latest = time
        yield from _stream_datums(waiting, latest)
        yield latest, name, doc
    yield from _stream_datums(waiting, latest)


def _stream_datums(waiting: list[Document], time: float) -> Iterator[_Timed]:
    """Yield stream_datums with their time, and empty the list of them."""
    for doc in waiting:
        yield time, "stream_datum", doc
    waiting.clear()


def _merged(tracks: Sequence[Iterator[_Timed]]) -> Iterator[NamedDocument]:
    heads = [(next(track, None), number, track) for number, track in enumerate(tracks)]
    heap = [(head[0], number, head, track) for head, number, track in heads if head is not None]
    heapify(heap)
    while len(heap) > 1:
        _, number, (_, name, doc), track = heap[0]
        yield name, doc
        following = heap[1] if len(heap) == 2 or heap[1] < heap[2] else heap[2]
        limit = following[0]
        # Streams seldom alternate, so a track is followed until another one has its turn.
        for head in track:
            time, name, doc = head
            if time > limit or (time == limit and number > following[1]):
                heapreplace(heap, (time, number, head, track))
                break
            yield name, doc
        else:
            heappop(heap)
    for _, _, (_, name, doc), track in heap:
        yield name, doc
        for _, name, doc in track:
            yield name, doc
