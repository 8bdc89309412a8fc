"""Handlers and detector files with the interface of databroker 1: ``db.v1.reg``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..assets.files.resolving import normal_spec, spec_of
from ..assets.transfer import files_of
from ..core.errors import HandlerNotFound
from ..core.run_plan import resources_of
from ..header import Header

if TYPE_CHECKING:
    from ..broker import DataBroker

RenameHook = Callable[[int, int, str, str], Any]


class HandlerView(Mapping[str, Any]):
    """A read-only mapping ``{spec: handler class}`` of a broker.

    A class is imported when it is looked up. Specs whose handler was deregistered here are left
    out, whether the handler is built in or not.
    """

    def __init__(self, db: DataBroker) -> None:
        self._db = db
        self.gone: set[str] = set()

    def __getitem__(self, spec: str) -> Any:
        if normal_spec(spec) in self.gone:
            raise KeyError(spec)
        return self._db.handler_registry.find(spec).load()

    def __iter__(self) -> Iterator[str]:
        return (spec for spec in self._db.handler_registry.specs() if spec not in self.gone)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Registry:
    """``db.v1.reg``: register handlers by spec, and copy detector files.

    Parameters
    ----------
    db
        Broker that has the handlers.
    """

    def __init__(self, db: DataBroker) -> None:
        self._db = db
        self.handler_reg = HandlerView(db)

    @property
    def root_map(self) -> dict[str, str]:
        """``{root in the documents: root where the files are now}``; may be changed in place."""
        return self._db.root_map

    def register_handler(self, key: str, handler: Any, overwrite: bool = False) -> None:
        """Register a handler; see :meth:`daskbroker.DataBroker.register_handler`."""
        self._db.register_handler(key, handler, overwrite)
        self.handler_reg.gone.discard(normal_spec(key))

    def deregister_handler(self, key: str) -> None:
        """Remove the handler of a spec.

        A handler that is built in or installed is removed from ``db.v1`` and ``db.v2`` only.
        """
        with suppress(HandlerNotFound):
            self._db.deregister_handler(key)
        self.handler_reg.gone.add(normal_spec(key))

    def check(self, header: Header) -> None:
        """Check that no resource of a run has a deregistered spec.

        Raises
        ------
        HandlerNotFound
            If one has. It is a KeyError.
        """
        if not self.handler_reg.gone:
            return
        for plan in header.plans():
            for _, doc in resources_of(plan.references):
                spec = spec_of(doc)
                if spec in self.handler_reg.gone:
                    raise HandlerNotFound(
                        f"run {header.uid!r}: the handler of spec {spec!r} was deregistered; "
                        "register one, or fill=False leaves references as they are"
                    )

    def copy_files(
        self,
        resource: Mapping[str, Any],
        new_root: str,
        verify: bool = False,
        file_rename_hook: RenameHook | None = None,
        run_start_uid: str | None = None,
    ) -> list[tuple[str, str]]:
        """Copy the files of a resource below another root; no document is changed.

        Parameters
        ----------
        resource
            Resource document.
        new_root
            Folder to copy to. Each file keeps the path that it has below the resource's ``root``.
        verify
            Must be False; verifying is not supported, as in databroker.
        file_rename_hook
            Function called before each copy as ``hook(number, total, old, new)``; its exceptions
            are ignored.
        run_start_uid
            Uid of the run, if the resource has no ``run_start``.

        Returns
        -------
        list of tuple
            ``(old path, new path)`` of each file.

        Raises
        ------
        NotImplementedError
            If ``verify`` is True.
        ValueError
            If the run is not known.
        """
        if verify:
            raise NotImplementedError("verify=True is not supported; daskbroker.copy verifies")
        run = resource.get("run_start", run_start_uid)
        if run is None:
            raise ValueError(
                f"resource {resource.get('uid')!r} has no 'run_start'; give run_start_uid"
            )
        root = resource.get("root") or os.path.sep
        pairs = [
            (path, os.path.join(new_root, os.path.relpath(path, root)))
            for path in file_list(self._db[run], resource)
        ]
        for number, (old, new) in enumerate(pairs):
            if file_rename_hook is not None:
                with suppress(Exception):  # the hook only observes, and must not stop the copy
                    file_rename_hook(number, len(pairs), old, new)
            os.makedirs(os.path.dirname(new), exist_ok=True)
            shutil.copy2(old, new)
        return pairs


def file_list(header: Header, resource: Mapping[str, Any]) -> list[str]:
    """Return the paths of the files of a resource.

    They come from ``get_file_list`` of its handler if it has that method, else from its path.
    """
    db = header.db
    resolved = db.files.resolve(resource)
    handler = db.handler_registry.find(resolved.spec).load()
    if not hasattr(handler, "get_file_list"):
        return [str(path) for path in files_of(resolved)]
    given = (
        doc["datum_kwargs"]
        for name, doc in header.documents(fill=False)
        if name == "datum" and doc["resource"] == resource["uid"]
    )
    return [str(path) for path in handler(resolved.path, **resolved.kwargs).get_file_list(given)]
