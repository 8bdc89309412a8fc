"""What a store implements: the manifesto's ``HeaderSource`` and ``EventSource``."""

from .event_source import EventSource, expand_bulk, run_of, stream_of
from .header_source import HeaderPair, HeaderSource, is_whole_number

__all__ = [
    "EventSource",
    "HeaderPair",
    "HeaderSource",
    "expand_bulk",
    "is_whole_number",
    "run_of",
    "stream_of",
]
