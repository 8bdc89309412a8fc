"""What a store implements: the manifesto's ``HeaderSource`` and ``EventSource``."""

from ..core.run_plan import stream_of
from .event_source import EventSource, expand_bulk, no_stream, run_of
from .header_source import HeaderPair, HeaderSource, is_whole_number

__all__ = [
    "EventSource",
    "HeaderPair",
    "HeaderSource",
    "expand_bulk",
    "is_whole_number",
    "no_stream",
    "run_of",
    "stream_of",
]
