"""Handlers: from the keyword arguments of datums to arrays."""

from .base import Block, BlockHandler, Datums, Roi

__all__ = ["Block", "BlockHandler", "Datums", "Roi"]
