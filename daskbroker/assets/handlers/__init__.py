"""Handlers: from the keyword arguments of datums to arrays."""

from .contract import Block, BlockHandler, Datums, FramesThere, Roi

__all__ = ["Block", "BlockHandler", "Datums", "FramesThere", "Roi"]
