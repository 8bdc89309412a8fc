"""daskbroker: Bluesky data as lazy Dask tables, xarray datasets and document streams.

The names below are imported when they are first used, so that ``daskbroker --help`` and shell
completion do not wait for dask, pandas and xarray.
"""

from __future__ import annotations

import sys
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .core.documents import show_by
from .core.old_names import instead_of
from .core.open_brokers import register_opener
from .core.settings import look_up_by

if TYPE_CHECKING:
    from .broker import DataBroker
    from .connect import connect, temp
    from .core.documents import ALL, Document
    from .core.errors import (
        BadRunWarning,
        DaskbrokerError,
        ExportWarning,
        FilledValuesWarning,
        MissingTimeWarning,
        SearchWarning,
    )
    from .display.header_list import HeaderList
    from .exporting.references.file_states import verify_references
    from .header import Header
    from .mapping import Outcome
    from .results import Results
    from .views.dataset.attributes import attrs
    from .views.dataset.savable import savable
    from .views.documents.paging import PageBuffer
    from .views.runs import dataset_to_stream, table_to_stream
    from .views.table.from_documents import RunBuffer, stream_to_table
    from .work.backup import backup
    from .work.checking import check
    from .work.copying import copy
    from .work.reprocess import ReprocessReport, reprocess

try:
    __version__ = version("daskbroker")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0"

_PUBLIC = {
    "broker": ["DataBroker"],
    "connect": ["connect", "temp"],
    "core.documents": ["ALL", "Document"],
    "core.errors": [
        "BadRunWarning",
        "DaskbrokerError",
        "ExportWarning",
        "FilledValuesWarning",
        "MissingTimeWarning",
        "SearchWarning",
    ],
    "display.header_list": ["HeaderList"],
    "exporting.references.file_states": ["verify_references"],
    "header": ["Header"],
    "mapping": ["Outcome"],
    "results": ["Results"],
    "views.dataset.attributes": ["attrs"],
    "views.table.from_documents": ["RunBuffer", "stream_to_table"],
    "views.runs": ["dataset_to_stream", "table_to_stream"],
    "views.documents.paging": ["PageBuffer"],
    "views.dataset.savable": ["savable"],
    "work.backup": ["backup"],
    "work.checking": ["check"],
    "work.copying": ["copy"],
    "work.reprocess": ["ReprocessReport", "reprocess"],
}
"""By module, what is imported from it."""
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "ALL",
    "BadRunWarning",
    "DaskbrokerError",
    "DataBroker",
    "Document",
    "ExportWarning",
    "FilledValuesWarning",
    "Header",
    "HeaderList",
    "MissingTimeWarning",
    "Outcome",
    "PageBuffer",
    "ReprocessReport",
    "Results",
    "RunBuffer",
    "SearchWarning",
    "attrs",
    "backup",
    "check",
    "connect",
    "copy",
    "dataset_to_stream",
    "reprocess",
    "savable",
    "stream_to_table",
    "table_to_stream",
    "temp",
    "verify_references",
]


def _of(module: str, name: str) -> Any:
    return getattr(import_module(f"{__name__}.{module}"), name)


class _Package(ModuleType):
    """The package; ``connect`` is the function, also when the module of that name is imported."""

    @property
    def connect(self) -> Any:
        return _of("connect", "connect")

    @connect.setter
    def connect(self, module: Any) -> None:
        """Python sets an imported module on its package, which hides nothing here."""

    def __getattr__(self, name: str) -> Any:
        if name in _MODULE_OF:
            found = self.__dict__[name] = _of(_MODULE_OF[name], name)
            return found
        try:
            if not name.startswith("_"):
                return import_module(f"{self.__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{self.__name__}.{name}":
                raise
        hint = instead_of(self.__name__, name)
        # `from daskbroker import name` first asks by hasattr, and drops the text of the error.
        if hint and sys._getframe(1).f_code.co_name == "_handle_fromlist":
            text = f"cannot import name {name!r} from {self.__name__!r}{hint}"
            raise ImportError(text, name=self.__name__)
        text = f"module {self.__name__!r} has no attribute {name!r}{hint}"
        raise AttributeError(text, name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *_MODULE_OF})


def _register_defaults() -> None:
    """Add ``daskbroker.yaml`` to the defaults of dask's configuration; settings come from there."""
    import yaml
    from dask import config
    from dask.utils import parse_bytes

    text = resources.files(__name__).joinpath("daskbroker.yaml").read_text(encoding="utf8")
    config.update_defaults(yaml.safe_load(text))
    look_up_by(config.get, parse_bytes)  # from now on without an import each time


def _look_up(key: str, default: object) -> Any:
    from dask import config

    _register_defaults()
    return config.get(key, default)


def _parse_bytes(text: object) -> int:
    from dask.utils import parse_bytes

    return parse_bytes(text)


sys.modules[__name__].__class__ = _Package
if "dask" in sys.modules:
    _register_defaults()
else:  # with the first setting that is needed: importing dask takes longer than printing help
    look_up_by(_look_up, _parse_bytes)
show_by(
    lambda document: _of("display.tree", "document_markup")(document),
    lambda document: _of("display.tree", "document_text")(document),
)
register_opener(
    lambda key: _of("connect", "open_key")(key),
    lambda uri, **options: _of("connect", "key_of")(uri, **options),
)
