"""One block of external data: the cells of some datums of one resource, as an array."""

from __future__ import annotations

from typing import Any

from ..core.errors import FillError
from .handlers.base import Block, Datums, Roi
from .registry import Factory
from .resolving import ResolvedResource

__all__ = ["cell_shape", "read_block"]


def read_block(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    roi: Roi = (),
    *,
    data_key: Any = None,
    where: str = "",
) -> Block:
    """Read one region of the cells of some datums, in this process, with its open handlers.

    Parameters
    ----------
    resource, factory
        From :func:`~daskbroker.assets.resolving.resolve` and
        :meth:`~daskbroker.assets.registry.HandlerRegistry.find`.
    datums
        Of this resource.
    roi
        What to read of each cell.
    data_key
        The descriptor's entry of the data key, wanted for stream resources.
    where
        Begins the message of an error: run, stream and key.

    Returns
    -------
    numpy.ndarray or list
        Shape ``(len(datums), *cell[roi].shape)``; a list where the cells have no common shape.

    Raises
    ------
    FillError
        Whatever goes wrong, at once; it names ``where``, spec and path.
    """
    raise FillError(f"{where}: not yet")


def cell_shape(
    resource: ResolvedResource,
    factory: Factory,
    datums: Datums,
    *,
    data_key: Any = None,
    where: str = "",
) -> tuple[int, ...] | None:
    """Shape of the whole cells of these datums, as their handler gives them; see there."""
    raise FillError(f"{where}: not yet")
