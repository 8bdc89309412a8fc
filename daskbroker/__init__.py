"""daskbroker: Bluesky data as lazy Dask tables, xarray datasets and document streams."""

from importlib.metadata import PackageNotFoundError, version

import dask
from dask.utils import parse_bytes

from .broker import DataBroker
from .connect import connect, temp
from .core.documents import ALL, Document, show_by
from .core.errors import (
    BadRunWarning,
    DaskbrokerError,
    ExportWarning,
    FilledValuesWarning,
    SearchWarning,
)
from .core.settings import look_up_by
from .display.header_list import HeaderList
from .display.tree import document_markup, document_text
from .header import Header
from .mapping import Outcome
from .results import Results
from .views.attributes import attrs
from .views.convert import RunBuffer, stream_to_table
from .views.derive import dataset_to_stream, table_to_stream
from .views.pages import PageBuffer
from .views.savable import savable
from .work.backup import backup
from .work.checking import check
from .work.copying import copy
from .work.reprocess import ReprocessReport, reprocess

show_by(document_markup, document_text)
look_up_by(lambda key, default: dask.config.get(key, default), parse_bytes)

try:
    __version__ = version("daskbroker")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0"

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
]
