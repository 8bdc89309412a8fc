"""Handlers, which read arrays for the keyword arguments of datums."""

from .contract import Block, BlockHandler, Datums, FramesThere, Roi

__all__ = ["Block", "BlockHandler", "Datums", "FramesThere", "Roi"]
