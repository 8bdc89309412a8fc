"""Call a function once per run, on workers or local threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dask.utils import funcname

from .core.printable import printable
from .header import Header
from .progress import progress_bar
from .workers import Pool, as_completed, open_pool

if TYPE_CHECKING:
    from distributed import Client


class Outcome:
    """Outcome of a function called with a run: its result, or the exception it raised.

    Attributes
    ----------
    header
        Run that the function was called with.
    future
        Finished future of the call, of ``distributed`` or ``concurrent.futures``.
    """

    def __init__(self, header: Header, future: Any) -> None:
        self.header = header
        self.future = future

    @property
    def uid(self) -> str:
        """Uid of the run."""
        return self.header.uid

    def result(self) -> Any:
        """Return what the function returned, fetched from the worker that has it.

        Raises
        ------
        Exception
            If the function raised it.
        """
        return self.future.result()

    @cached_property
    def error(self) -> BaseException | None:
        """Exception of the function, or of the loss of its worker; None if there is a result."""
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
    client: Client | None = None,
    in_flight: int | None = None,
    progress: bool | None = None,
) -> Iterator[Outcome]:
    """Call ``func(header, *args, **kwargs)`` for each run; yield outcomes as the calls end.

    See :meth:`daskbroker.Results.map`.

    Raises
    ------
    ConfigError
        If the client is asynchronous.
    """
    with open_pool(client) as pool, progress_bar(headers, " runs", show=progress) as bar:
        start = partial(_start, pool, funcname(func), partial(func, **(kwargs or {})), args)
        for header, future in as_completed(start, headers, in_flight or pool.ahead):
            bar.update()
            yield Outcome(header, future)


def _start(
    pool: Pool, name: str, func: Callable[..., Any], args: tuple[Any, ...], header: Header
) -> Any:
    return pool.submit(name, func, header.portable() if pool.remote else header, *args)
