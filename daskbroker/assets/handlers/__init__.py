"""Handlers, which read arrays for the keyword arguments of datums."""

from ..regions import Roi
from .contract import Block, BlockHandler, CellsDiffer, Datums, FramesThere

__all__ = ["Block", "BlockHandler", "CellsDiffer", "Datums", "FramesThere", "Roi"]
