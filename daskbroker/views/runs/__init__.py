"""Make new runs of tables, of Datasets, and of the documents of other runs.

The uid of the new run can be given. All other uids are derived from it and from the position of
their document, so that the same content always makes the same documents.
"""

from .from_dataset import dataset_to_stream
from .from_documents import documents_to_run
from .from_table import table_to_stream
from .new_run import derived_uid

__all__ = ["dataset_to_stream", "derived_uid", "documents_to_run", "table_to_stream"]
