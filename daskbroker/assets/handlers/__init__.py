"""Handlers, which read arrays for the keyword arguments of datums."""

from ..regions import Roi
from .contract import Block, BlockHandler, Datums, FramesThere

__all__ = ["Block", "BlockHandler", "Datums", "FramesThere", "Roi"]
