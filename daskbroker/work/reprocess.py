"""Reprocessing: a function is called for each run, and its results become runs of their own.

The uid of a new run is derived from the source run, the function and its parameters, and all its
other uids are derived from that. So a job that is run again, whatever happened to it, finds what
it has made, continues where it was interrupted, and makes nothing twice.
"""

from __future__ import annotations

import inspect
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import xarray as xr
from dask.utils import funcname, is_dataframe_like, is_series_like

from ..broker import DataBroker
from ..core import advice
from ..core.arguments import COUNT, FLAG, MAPPING, NAME, accepts
from ..core.digests import digest_of
from ..core.documents import NamedDocument, from_json, normalize, to_json
from ..core.errors import BadDocument, ConfigError, StoreFull, StoreReadOnly
from ..core.printable import counted
from ..core.search import is_derived, origin_of
from ..header import Header
from ..progress import progress_bar
from ..views.documents.paging import PageBuffer
from ..views.runs import dataset_to_stream, derived_uid, documents_to_run, table_to_stream
from ..workers import as_completed, open_pool
from .given import check_broker, oldest_first, runs_of

if TYPE_CHECKING:
    from distributed import Client

PACKAGES = ("daskbroker", "dask", "numpy", "pandas", "xarray")
"""Packages whose versions are noted in ``derived_from``."""

Documents = list[NamedDocument]


@dataclass
class ReprocessReport:
    """Report of :func:`reprocess`.

    Attributes
    ----------
    done
        ``{uid of a source run: uids of the runs made from it}``.
    skipped
        ``{uid of a source run: reason}``.
    failed
        ``{uid of a source run: exception}``. Nothing that was made from such a run counts as done.
    """

    done: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, BaseException] = field(default_factory=dict)

    def __str__(self) -> str:
        made = sum(map(len, self.done.values()))
        text = f"{counted(len(self.done), 'run')} done, {made:,} made of them"
        return f"{text}; {len(self.skipped):,} skipped, {len(self.failed):,} failed"


@accepts(
    parameters=MAPPING.or_none(),
    name=NAME.or_none(),
    in_flight=COUNT.or_none(),
    progress=FLAG.or_none(),
)
def reprocess(
    results: DataBroker | Iterable[Header] | Header,
    func: Callable[..., Any],
    into: DataBroker,
    *,
    parameters: Mapping[str, Any] | None = None,
    name: str | None = None,
    dataset: str | None = None,
    unfinished: bool = False,
    derived: bool = False,
    client: Client | None = None,
    in_flight: int | None = None,
    progress: bool | None = None,
) -> ReprocessReport:
    """Call a function for each run, on the workers, and store its results as new runs.

    Parameters
    ----------
    results
        Runs, such as ``db(plan_name="scan")``, a broker (all its runs), or one header. The runs of
        a search are taken oldest first, so that new runs have the order of their sources. Other
        iterables keep their own order.
    func
        Function that is called as ``func(header, **parameters)``. It returns or yields any number
        of tables (DataFrames or Series of pandas or Dask), Datasets, and documents (pairs
        ``(name, doc)``, each run beginning with its start). Each table, each Dataset and each
        sequence of documents becomes a run. None is ignored. The index of a table becomes columns
        as described by :func:`daskbroker.table_to_stream`.
    into
        Broker that the new runs are inserted into. It may be the one that the runs come from.
    parameters
        JSON-like keyword arguments of the function. They are kept in the start documents.
    name
        Name of the job: calls with the same name and the same parameters are the same job. By
        default a job is identified by the module, the name and a digest of the source of the
        function, so an edited function is another job. A name is required for a lambda, a
        closure, and anything that is not a plain function.
    dataset
        Name of a stream. If given, the function is called with the Dataset of this stream in place
        of the header.
    unfinished
        Whether to take also runs without a stop, as they are now.
    derived
        Whether to take also runs that were themselves made from others, that is, whose start
        document has ``derived_from``.
    client
        A ``distributed.Client``. By default the active one, else Dask's local scheduler.
    in_flight, progress
        See :meth:`daskbroker.Results.map`.

    Returns
    -------
    ReprocessReport
        Report that includes skipped and failed runs. They do not stop the others.

    Raises
    ------
    ConfigError
        If ``func`` is not a function, or it cannot be identified by its source and no name is
        given, or if ``into`` is not a broker.
    StoreFull, StoreReadOnly
        If ``into`` cannot take any more. What has been inserted stays, and the job can be run
        again.

    Notes
    -----
    The start document of a new run repeats the one of the source. Its ``derived_from`` holds the
    uid of the source, the function, the parameters, and the versions of packages.

    Documents are made on the workers. The workers also insert them if they can open ``into``;
    otherwise (an embedded store) this process does.

    Everything survives a loss of power once this function has returned. Before that, a loss of
    power may cost the documents of the last second (see :meth:`daskbroker.DataBroker.batch`).

    A new run is in memory as a whole while it is inserted. Whatever the function uses besides its
    own source and its parameters, such as other functions or files, does not distinguish jobs.
    """
    check_broker(into)
    results = runs_of(results, "results")
    recipe = _Recipe.of(func, parameters, name, dataset)
    report = ReprocessReport()
    with (
        into.batch(),
        open_pool(client) as pool,
        progress_bar(results, " runs", show=progress) as bar,
    ):
        inserting = pool.remote and all(
            source.store.opens_on_workers for source in into.event_sources
        )

        def start(job: _Job) -> Any:
            # Workers cannot open an embedded store, so a header carries its plans to them.
            run = job.run.portable() if pool.remote else job.run
            task = _make_and_insert if inserting else _make
            extra = (into,) if inserting else ()
            return pool.submit(recipe.shown, task, recipe, replace(job, run=run), *extra)

        jobs = _jobs(
            results, recipe, into, unfinished=unfinished, derived=derived, report=report, bar=bar
        )
        for job, future in as_completed(start, jobs, in_flight or pool.ahead):
            bar.update()
            _note(report, job, future, None if inserting else into)
    return report


def _note(report: ReprocessReport, job: _Job, future: Any, into: DataBroker | None) -> None:
    """Note the result of a task in the report; if ``into`` is given, insert its runs first."""
    uid = job.run.uid
    # It has no result to ask for.
    if future.cancelled():
        report.failed[uid] = ConnectionError(f"run {uid!r}: its call was cancelled")
        return
    try:
        made = future.result()
        report.done[uid] = made if into is None else _insert(into, made)
    except (StoreFull, StoreReadOnly):
        raise  # no other run would fare better
    except Exception as error:
        report.failed[uid] = error


# -- which runs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """The work to do for one source run.

    Attributes
    ----------
    run
        The source run.
    first
        Uid of the first run that is made from it.
    time, versions
        Time and versions in all start documents made from it. If the job was begun before, they
        are the stored ones, so that the documents are the same. Otherwise ``versions`` is None and
        the worker's versions are taken.
    """

    run: Header
    first: str
    time: float
    versions: Mapping[str, str] | None = None

    @classmethod
    def again(cls, run: Header, start: Mapping[str, Any]) -> _Job:
        """Return the job for a source run whose first result was begun with this start."""
        versions = start["derived_from"]["versions"]
        return cls(run, start["uid"], float(start["time"]), versions)


def _jobs(
    results: Iterable[Header],
    recipe: _Recipe,
    into: DataBroker,
    *,
    unfinished: bool,
    derived: bool,
    report: ReprocessReport,
    bar: Any,
) -> Iterator[_Job]:
    """Yield the jobs that are still to do, and note the other runs as skipped."""
    for found_run in oldest_first(results, into):
        run = found_run.as_now()  # the uid of the stop is part of what results are identified by
        first = recipe.uid_of(run)
        found = into.header_source.store.find_uid(first)
        # It may get more events, and what is made of it another uid.
        if run.stop is None and not unfinished:
            reason = "it has not stopped"
        # Results in the same store would be processed without end.
        elif recipe.made(run):
            reason = "this job made it"
        elif is_derived(run.start) and not derived:
            reason = f"it is derived from {origin_of(run.start)}; derived=True takes it, too"
        elif found is not None and found[1] is not None:
            reason = f"done before, as {first}"
        else:
            # Begun before and cut off: the same versions are noted again.
            yield _Job(run, first, time.time()) if found is None else _Job.again(run, found[0])
            continue
        report.skipped[run.uid] = reason
        bar.update()


@dataclass(frozen=True)
class _Recipe:
    """A function with its parameters, and the note that identifies the job."""

    func: Callable[..., Any]
    parameters: Mapping[str, Any]
    dataset: str | None
    shown: str
    note: str

    @classmethod
    def of(
        cls,
        func: Callable[..., Any],
        parameters: Mapping[str, Any] | None,
        name: str | None,
        dataset: str | None,
    ) -> _Recipe:
        if not callable(func):
            raise ConfigError(f"func must be a function of a header, not a {type(func).__name__}")
        given = normalize(dict(parameters or {}), "parameters")
        note: dict[str, Any] = {"function": _function_name(func)}
        # A name given by the user stands for the source.
        if name is not None:
            note["name"] = name
        else:
            note["source"] = _digest_of_source(func)
        # Only if given, so that the identity of other jobs stays as it was.
        if dataset is not None:
            note["dataset"] = dataset
        note["parameters"] = given
        return cls(func, given, dataset, name or funcname(func), to_json(note))

    @property
    def identity(self) -> str:
        """Text that is equal for two calls of the same job."""
        note = from_json(self.note)
        if "name" in note:
            del note["function"]  # a named function may move to another module
        return json.dumps(note, sort_keys=True)

    def uid_of(self, run: Header) -> str:
        """Return the uid of the first run that is made from a run."""
        stop = None if run.stop is None else run.stop["uid"]
        return derived_uid(run.uid, json.dumps([stop, self.identity]))

    def made(self, run: Header) -> bool:
        """Return whether a run is itself a result of this job."""
        origin = run.start.get("derived_from")
        return isinstance(origin, Mapping) and origin.get("job") == self.job

    @property
    def job(self) -> str:
        """Hexadecimal digest of the identity, for start documents."""
        return digest_of(self.identity)

    def provenance(self) -> dict[str, Any]:
        """Return the part of ``derived_from`` that describes the job."""
        return {"job": self.job, **from_json(self.note)}


def _function_name(func: Callable[..., Any]) -> str:
    module = getattr(func, "__module__", None) or type(func).__module__
    return f"{module}:{getattr(func, '__qualname__', type(func).__qualname__)}"


def _digest_of_source(func: Callable[..., Any]) -> str:
    """Return a digest of a function's source text, or of its bytecode if it has none.

    Raises
    ------
    ConfigError
        If it is a lambda, a closure, or not a plain function.
    """
    shown = _function_name(func)
    # Such functions have the same source in different calls, or none.
    if not inspect.isfunction(func) or func.__name__ == "<lambda>" or func.__closure__:
        raise ConfigError(
            f"{shown} cannot be identified by its source (a lambda, a closure, or not a plain "
            f"function); give reprocess a {advice.option('name')} for the job"
        )
    try:
        text = inspect.getsource(func).encode()
    # Functions typed into an interpreter have no file with their source.
    except (OSError, TypeError):
        text = func.__code__.co_code + repr(func.__code__.co_consts).encode()
    return digest_of(text)


def _versions(func: Callable[..., Any]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    own = (getattr(func, "__module__", None) or "").partition(".")[0]
    for package in (*PACKAGES, own):
        # ValueError: a function without a module has no package.
        with suppress(PackageNotFoundError, ValueError):
            found[package] = version(package)
    module = sys.modules.get(own)
    # Packages without metadata of an installation often have a version all the same.
    if own not in found and isinstance(getattr(module, "__version__", None), str):
        found[own] = str(module.__version__)  # type: ignore[union-attr]
    return found


# -- on a worker -----------------------------------------------------------------------------


def _make(recipe: _Recipe, job: _Job) -> list[Documents]:
    """Call the function and return the documents of each run that it makes."""
    given = job.run if recipe.dataset is None else job.run.dataset(recipe.dataset)
    provenance = {
        **recipe.provenance(),
        "versions": dict(job.versions or _versions(recipe.func)),
        "runs": [job.run.uid],
    }
    made: list[Documents] = []
    for number, product in enumerate(_products(recipe.func(given, **recipe.parameters))):
        options = {
            "uid": derived_uid(job.first, str(number)) if number else job.first,
            "time": job.time,
            "provenance": {**provenance, "number": number},
        }
        made.append(list(PageBuffer()(_documents(product, job.run, recipe.dataset, options))))
    return made


def _make_and_insert(recipe: _Recipe, job: _Job, into: DataBroker) -> list[str]:
    return _insert(into, _make(recipe, job))


def _documents(
    product: Any, run: Header, stream: str | None, options: dict[str, Any]
) -> Iterator[NamedDocument]:
    """Return a result of the function as documents.

    Lazy results are computed in this task. Tasks of other workers are not started by it.
    """
    if isinstance(product, list):
        return documents_to_run(product, run, **options)
    options["scheduler"] = "synchronous"
    if isinstance(product, xr.Dataset):
        return dataset_to_stream(product, run, product.attrs.get("stream", stream), **options)
    return table_to_stream(product, run, pages=True, **options)


def _products(result: object) -> Iterator[Any]:
    """Yield the tables and Datasets in a result one by one, and the documents of a run as a list.

    Raises
    ------
    BadDocument
        If the result holds anything else.
    """
    if result is None:
        return
    # Dask takes a DataArray for a Series, and it is iterable.
    if isinstance(result, (xr.DataArray, xr.Variable)):
        raise _refused(result)
    if is_dataframe_like(result) or is_series_like(result) or isinstance(result, xr.Dataset):
        yield result
        return
    if not isinstance(result, Iterable) or isinstance(result, (str, bytes, Mapping)):
        raise _refused(result)
    documents: list[Any] = []
    for item in result:
        pair = isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)
        # A second start begins another run.
        if documents and (not pair or item[0] == "start"):
            yield documents
            documents = []
        if pair:
            documents.append(item)
        # A function may yield None for what it makes nothing of.
        elif item is not None:
            yield from _products(item)
    if documents:
        yield documents


def _refused(result: object) -> BadDocument:
    instead = ""
    if isinstance(result, xr.DataArray):
        instead = "; .to_dataset(name='...') makes a Dataset of it"
    elif isinstance(result, xr.DataTree):
        instead = "; result[name].to_dataset() makes a Dataset of one of its nodes"
    elif isinstance(result, Mapping):
        instead = "; pandas.DataFrame([result]) makes a table of it"
    return BadDocument(
        f"the function gave a {type(result).__name__}; it must return or yield tables, Datasets, "
        f"(name, document) pairs, or None{instead}"
    )


# -- storing ---------------------------------------------------------------------------------


def _insert(into: DataBroker, made: list[Documents]) -> list[str]:
    """Insert the runs made from one run and return their uids.

    The start of the first run is inserted first, as it keeps the time and the versions for an
    attempt that has to continue. The rest of the first run is inserted last, as its stop marks all
    of the runs as complete.
    """
    if not made:
        return []
    into.insert(*made[0][0])
    for documents in [*made[1:], made[0]]:
        for name, doc in documents:
            into.insert(name, doc)
    return [documents[0][1]["uid"] for documents in made]
