"""A function called once per run, on workers or local threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

from dask.utils import funcname

from .core.errors import ConfigError
from .core.printable import printable
from .header import Header
from .progress import progress_bar
from .workers import Pool, as_completed, open_pool

__all__ = ["Outcome", "map_runs"]


class Outcome:
    """What a function made of a run: a result, or the error it raised.

    Attributes
    ----------
    header
        The run.
    future
        Of the call, ended: a ``distributed.Future`` or one of ``concurrent.futures``.
    """

    def __init__(self, header: Header, future: Any) -> None:
        self.header = header
        self.future = future

    @property
    def uid(self) -> str:
        """Of the run."""
        return self.header.uid

    def result(self) -> Any:
        """What the function returned, fetched from the worker that has it.

        Raises
        ------
        Exception
            What the function raised.
        """
        return self.future.result()

    @cached_property
    def error(self) -> BaseException | None:
        """What the function raised, or what befell the worker; None if it has a result."""
        if self.future.cancelled():
            return ConnectionError(
                f"run {self.uid!r}: its call was cancelled, or the scheduler was lost"
            )
        error: BaseException | None = self.future.exception()
        return error

    def __repr__(self) -> str:
        state = "result" if self.error is None else f"error {self.error!r}"
        return f"<Outcome of run {printable(self.uid)}: {state}>"


def map_runs(
    headers: Iterable[Header],
    func: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    client: Any = None,
    in_flight: int | None = None,
    progress: bool | None = None,
) -> Iterator[Outcome]:
    """Call ``func(header, *args, **kwargs)`` for each run; outcomes as they come.

    See :meth:`daskbroker.Results.map`.
    """
    if in_flight is not None and in_flight < 1:
        raise ConfigError(f"in_flight must be 1 or more, not {in_flight}")
    with open_pool(client) as pool, progress_bar(headers, " runs", progress) as bar:
        start = partial(_start, pool, funcname(func), partial(func, **(kwargs or {})), args)
        for header, future in as_completed(start, headers, in_flight or pool.ahead):
            bar.update()
            yield Outcome(header, future)


def _start(
    pool: Pool, name: str, func: Callable[..., Any], args: tuple[Any, ...], header: Header
) -> Any:
    return pool.submit(name, func, header.portable() if pool.remote else header, *args)
