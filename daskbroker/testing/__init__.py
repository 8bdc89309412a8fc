"""Tools for testing daskbroker and third-party event stores.

``daskbroker.testing.conformance`` has the suite that every store must pass; it needs pytest.
``daskbroker.testing.strategies`` generates any valid run with hypothesis. The names of this module
need neither: synthetic runs, and comparisons of documents whose messages say what differs.

``docs/writing-a-store.md`` describes what a store must do. One test module applies the suite::

    import pytest

    pytest.register_assert_rewrite("daskbroker.testing")
    from daskbroker.testing.conformance import BrokerConformance

    class TestMyStore(BrokerConformance):
        @pytest.fixture
        def broker(self, tmp_path): ...   # connect() to an empty, writable store

        @pytest.fixture
        def reopen(self, broker): ...     # a callable: close the store, open it again
"""

from .compare import assert_documents_equal, assert_references_first, difference, expand_documents
from .runs import (
    RunBuilder,
    baseline_run,
    external_run,
    interleave,
    make_run,
    paged_run,
    ragged_run,
    rewound_run,
    stream_datum_run,
)

__all__ = [
    "RunBuilder",
    "assert_documents_equal",
    "assert_references_first",
    "baseline_run",
    "difference",
    "expand_documents",
    "external_run",
    "interleave",
    "make_run",
    "paged_run",
    "ragged_run",
    "rewound_run",
    "stream_datum_run",
]
