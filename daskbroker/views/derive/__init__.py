"""New runs made of tables, of Datasets, and of the documents of other runs.

The uid of the new run can be given; all its other uids are derived from it and from their
place, so that the same content always makes the same documents.
"""

from .dataset import dataset_to_stream
from .documents import documents_to_run
from .run import derived_uid
from .table import table_to_stream

__all__ = ["dataset_to_stream", "derived_uid", "documents_to_run", "table_to_stream"]
