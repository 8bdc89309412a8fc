"""The databases of a MongoDB store: clients, collections, indexes, format, errors.

Start, stop, descriptor and event documents are in the *metadata* database, resources and datums in
the *assets* database, which may be the same. The sources and readers of a store share one
:class:`Database` in each process. It makes its clients when they are first needed, so unpickling a
reader on a worker costs nothing.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pymongo
from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import (
    DuplicateKeyError,
    PyMongoError,
)

from ...core.bounded_dict import BoundedDict
from ...core.chunks import place_identity
from ...core.digests import digest_of
from ...core.errors import StoreDamaged, StoreUnavailable, read_only_error
from ...core.forking import ProcessLock, in_each_process
from ...core.formats import check_format
from ...core.redaction import address_of, label_of
from ...core.settings import setting
from .acknowledgement import (
    insert_seconds,
    read_concern,
    write_concern,
)
from .bson_documents import CODEC
from .clients import Clients, check_names_database
from .indexes import (
    ASSET_INDEXES,
    METADATA_INDEXES,
    OWN_INDEXES,
    drop_former_indexes,
    missing_indexes,
)
from .server_errors import inserting, store_error

FORMAT_VERSION = 1
META = "daskbroker_meta"
RUN_COLLECTION = "daskbroker_run"
CHUNK_COLLECTION = "event_chunk"
COLUMN_COLLECTION = "event_chunk_column"
PEEK_COLLECTION = "daskbroker_peek"
LOOK_SECONDS = 1.0
"""Maximum seconds until this process notices changes by others, if each look costs a query."""
MANY = 16
"""Number of values in a query above which :data:`CLASSIC` pays."""
CLASSIC: tuple[dict[str, Any], ...] = ({"$unset": "_"},)
"""A stage without effect, except that MongoDB 6 does not use its other engine for the pipeline.

That engine is quicker for many rows, but takes 0.14 ms to prepare for each of :data:`MANY` values
or more that are requested.
"""
ATTEMPTS = 3
"""Maximum number of times that missing indexes are made."""
NOBODY = "daskbroker-nobody"
"""An ``_id`` that no document has."""
MOST_OPEN = 16
"""Maximum number of databases, opened by readers alone, that stay connected on a worker."""

_open: BoundedDict[tuple[str, str | None, bool], Database] = BoundedDict(MOST_OPEN)
_open_lock = ProcessLock()


class Database:
    """The databases of one store. Use :meth:`of` to share one in each process.

    Parameters
    ----------
    uri
        Uri of the metadata database, including its name.
    assets
        Uri of the assets database. The metadata database if None.
    read_only
        Whether to refuse all writing.

    Raises
    ------
    ConfigError
        If a uri does not name a database. Any other fault of a uri is found when a client is made.
    """

    def __init__(self, uri: str, assets: str | None = None, *, read_only: bool = False) -> None:
        self.uri = uri
        self.assets_uri = assets
        self.read_only = read_only
        self.label = label_of(uri)
        self._clients = Clients(self.label)
        self._collections: dict[tuple[str, bool, bool, bool, bool], Collection] = {}
        in_each_process(self._begin)
        self._leases = 0
        self._ready = False
        self._meta: dict[str, Any] | None = None
        self._looked = float("-inf")
        self.marks_removed = float("-inf")
        """Monotonic time at which this process last removed marks; see :mod:`.sealed_rows`."""
        self._store_id: str | None = None
        self._noted_packed = False
        self._insert_seconds = insert_seconds(uri)
        for one in (uri, assets):
            if one is not None:
                check_names_database(one)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._collections.clear()

    @classmethod
    def of(cls, uri: str, assets: str | None = None, *, read_only: bool = False) -> Database:
        """Return the database for these uris that is shared in this process."""
        key = (uri, assets, read_only)
        with _open_lock.lock():
            found = _open.get(key)
            if found is None or found._clients.closed:
                found = cls(uri, assets, read_only=read_only)
            _open.put_last(key, found)  # one that is dropped closes when it is no longer used
            return found

    def lease(self) -> Callable[[], None]:
        """Register a user of the database and return a function that ends the use.

        The database is closed when the last of its users ends the use.
        """
        with self._lock:
            self._leases += 1
        return _Lease(self)

    # -- collections -------------------------------------------------------------------------

    def collection(
        self, name: str, *, sure: bool = True, settled: bool = False, nearest: bool = False
    ) -> Collection[dict[str, Any]]:
        """Return a collection of the metadata database, or of the assets database.

        Parameters
        ----------
        name
            Name of the collection, which decides in which database it is.
        sure
            Whether writes wait as described in :mod:`.acknowledgement`. If False, a write may be
            lost, even if a later write that was waited for is not.
        settled
            Whether reads show only documents that no failover can lose.
        nearest
            Whether reads go to the members that the uri's ``readPreference`` selects. Otherwise
            they go to the primary, as the states of different members are not consistent with each
            other.
        """
        client = self._clients.client(self._uri_of(name))
        journaled: bool = setting("mongo-journaled")
        key = (name, sure, settled, nearest, journaled)
        found = self._collections.get(key)
        if found is None or found.database.client is not client:  # closed, or the parent's
            store = client.get_default_database(codec_options=CODEC)
            writing = write_concern(store.write_concern, journaled=journaled, sure=sure)
            found = store.get_collection(
                name,
                write_concern=writing,
                read_concern=read_concern(store.read_concern, writing) if settled else None,
                read_preference=None if nearest else ReadPreference.PRIMARY,
            )
            self._collections[key] = found
        return found

    def _uri_of(self, name: str) -> str:
        if self.assets_uri is not None and name in ASSET_INDEXES:
            return self.assets_uri
        return self.uri

    # -- what stays --------------------------------------------------------------------------

    @contextmanager
    def limit(self, *, insert: bool = False) -> Iterator[None]:
        """Return a context in which all commands together take no longer than an insert may.

        If contexts are nested, the limit of the outer one holds, too. With ``insert``, errors say
        what has become of the document.
        """
        try:
            with inserting() if insert else nullcontext(), pymongo.timeout(self._insert_seconds):
                yield
        except (KeyboardInterrupt, SystemError):  # pymongo's C code turns the former to the latter
            self._leave_clients()
            raise

    def _leave_clients(self) -> None:
        """Set the clients aside after an interrupt; see :meth:`.Clients.leave`."""
        self._clients.leave()
        self._collections.clear()  # they would keep the clients

    def session(self) -> AbstractContextManager[ClientSession]:
        """Return a session on the metadata database, for :meth:`settle`."""
        with self.errors():
            return self._clients.client(self.uri).start_session()

    def settle(self, session: ClientSession) -> None:
        """Wait until settled reads in a session show all confirmed documents that it has read.

        A member that has just become primary has everything that a majority has confirmed. For a
        moment it does not know that, and leaves these documents out of settled reads.
        """
        if session.operation_time is not None:  # None for a standalone server
            with self.errors(), self.limit():
                self.collection(META, settled=True).find_one({"_id": NOBODY}, session=session)

    def confirmed(
        self, name: str, query: Mapping[str, Any], *, waited: bool = False
    ) -> list[dict[str, Any]]:
        """Return the documents that a query finds, after waiting until no failover can lose them.

        Needed if a document that is found counts as stored, as it may come from an insert that was
        never confirmed. A settled read in the session of :meth:`_confirm` shows everything that is
        confirmed by then.

        Parameters
        ----------
        name, query
            Name of the collection, and filter for the documents.
        waited
            Whether a write that was refused because of these documents has just waited for the
            log. This is enough on a standalone server. (For a replica set pymongo does not tell
            whether that wait was in vain.)
        """
        with self.errors(), self._clients.client(self._uri_of(name)).start_session() as session:
            if waited:
                found = list(self.collection(name).find(query, session=session))
                if session.operation_time is None:  # a standalone server
                    return found
            self._confirm(self.collection(name), session)
            return list(self.collection(name, settled=True).find(query, session=session))

    @staticmethod
    def _confirm(
        collection: Collection[dict[str, Any]], session: ClientSession | None = None
    ) -> None:
        """Wait until everything that the primary has is confirmed.

        A write that changes nothing waits for all writes before it.
        """
        if collection.write_concern.acknowledged:
            nothing = {"$setOnInsert": {"nobody": True}}
            collection.update_one({"_id": NOBODY}, nothing, session=session)

    def insert_once(self, name: str, doc: Any, same: Mapping[str, Any]) -> dict[str, Any] | None:
        """Insert a document unless an equivalent one is stored and confirmed.

        Parameters
        ----------
        name
            Name of the collection.
        doc
            Document as BSON.
        same
            Filter for equivalent documents.

        Returns
        -------
        dict or None
            The equivalent document, or None if ``doc`` was inserted.

        Raises
        ------
        StoreUnavailable
            If the document was lost by failovers three times.
        """
        into = self.collection(name)
        for last in (False, False, True):
            # Not every old database has the unique index, so look first.
            if into.find_one(same, {"_id": 1}) is None:
                try:
                    into.insert_one(doc)
                    return None
                except DuplicateKeyError:
                    if last:
                        raise
            found = self.confirmed(name, same)
            if found:
                return found[0]
        raise StoreUnavailable(
            f"{self.label}: its primaries change while a document of {name} is inserted; insert "
            "it again"
        )

    def collection_names(self) -> list[str]:
        """Return the names of the collections in the metadata database."""
        with self.errors():
            return self.collection(META).database.list_collection_names()

    @property
    def format_version(self) -> int | None:
        """Version of the store's format, from daskbroker's note in it. None if there is no note."""
        if self._meta is None:
            self.check_format()
        return None if self._meta is None else int(self._meta["format"])

    def stored_bytes(self) -> int:
        """Return the bytes of the databases in the server's files, including indexes."""
        names = [META] if self.assets_uri is None else [META, next(iter(ASSET_INDEXES))]
        with self.errors():
            stats = [self.collection(name).database.command("dbStats") for name in names]
        return int(sum(one["storageSize"] + one["indexSize"] for one in stats))

    # -- format ------------------------------------------------------------------------------

    def check_format(self) -> None:
        """Read the note that daskbroker has left in the database, if any, and check its format.

        Raises
        ------
        StoreVersion, StoreDamaged
            If the format is not one that this version reads, or is not valid.
        StoreUnavailable, StoreError
            If the note cannot be read.
        """
        with self.errors():
            meta = self.collection(META).find_one({"_id": "store"})
        if meta is not None:
            check_format(f"the store at {self.label}", meta.get("format"), FORMAT_VERSION)
            # Spools and plans are for the store that has it, so nothing may take its place.
            if not isinstance(meta.get("store_id"), str):
                raise StoreDamaged(
                    f"the store at {self.label} is damaged: its document in {META} has the "
                    f"store_id {meta.get('store_id')!r:.60}, which must be text"
                )
        self._meta = meta
        address = digest_of(self.label)
        self._store_id = address if meta is None else str(meta["store_id"])

    @property
    def store_id(self) -> str:
        """Identity of the store, or a digest of its address if daskbroker has not written to it.

        A database that was copied to another server has the same identity.
        """
        if self._store_id is None:
            self.check_format()
        return str(self._store_id)

    @property
    def identity(self) -> str:
        """Identity of the store at this address, for tokens."""
        uris = [self.uri, *filter(None, [self.assets_uri])]
        return place_identity(self.store_id, *map(address_of, uris))

    @property
    def is_noted(self) -> bool:
        """Whether daskbroker has written to the store, as far as this process knows."""
        return self._meta is not None

    def has_packed(self) -> bool:
        """Return whether any start or stop has values that BSON cannot hold and queries do not see.

        The first such document of another process is noticed within a second.
        """
        known = bool((self._meta or {}).get("packed"))
        if not known and time.monotonic() - self._looked > LOOK_SECONDS:
            with self.errors():
                self._meta = self.collection(META).find_one({"_id": "store"})
            self._looked = time.monotonic()
        return bool((self._meta or {}).get("packed"))

    def note_packed(self) -> None:
        """Note, before it is stored, that a start or stop has values that BSON cannot hold."""
        # A note that was merely read may be of an unconfirmed write, which a failover can lose.
        if not self._noted_packed:
            self.collection(META).update_one({"_id": "store"}, {"$set": {"packed": True}})
            self._meta = {**(self._meta or {}), "packed": True}
            self._noted_packed = True

    def check_writable(self) -> None:
        """Raise StoreReadOnly if the store was opened to read only."""
        if self.read_only:
            raise read_only_error(f"the store at {self.label}")

    def prepare_writing(self) -> None:
        """Write daskbroker's note and make the indexes of a new store, before the first write.

        Raises
        ------
        StoreReadOnly
            If the store was opened read-only.
        """
        if self._ready:
            return
        self.check_writable()
        with self._lock, self.limit(), self.errors():
            note = {"store_id": uuid.uuid4().hex, "format": FORMAT_VERSION}
            self.collection(META).update_one({"_id": "store"}, {"$setOnInsert": note}, upsert=True)
            self.check_format()
            # Building indexes over the events of a facility is for its administrator to start.
            names = [*OWN_INDEXES]
            names += [
                name
                for name in (*METADATA_INDEXES, *ASSET_INDEXES)
                if self.collection(name).find_one({}, {"_id": 1}) is None
            ]
            self.create_indexes(names)
            self._ready = True

    def create_indexes(self, names: list[str] | None = None) -> list[str]:
        """Make the missing indexes of suitcase-mongo and daskbroker and return their names.

        Indexes of earlier versions that refuse what is valid now are dropped.

        Parameters
        ----------
        names
            Names of collections. All collections if None.
        """
        later = names is None
        names = names or [*METADATA_INDEXES, *ASSET_INDEXES, *OWN_INDEXES]
        made: dict[str, None] = {}
        with self.errors():
            # Wait for the majority once, not for each index. If the primary has changed by then
            # and some indexes are missing, they are made again.
            for _ in range(ATTEMPTS):
                new = self._make_missing(names, later=later)
                if not new:
                    break
                made.update(dict.fromkeys(new))
                for name in (META, "datum"):
                    self._confirm(self.collection(name))
        return list(made)

    def _make_missing(self, names: list[str], *, later: bool) -> list[str]:
        made = []
        for name in names:
            collection = self.collection(name, sure=False)
            missing = missing_indexes(collection, later=later)
            if missing:
                collection.create_indexes(missing)
                made += [f"{name}.{model.document['name']}" for model in missing]
            drop_former_indexes(collection)
        return made

    # -- errors ------------------------------------------------------------------------------

    @contextmanager
    def errors(self, what: str = "") -> Iterator[None]:
        """Return a context in which pymongo's errors become daskbroker's.

        Parameters
        ----------
        what
            Name of the document at hand, for messages.

        Raises
        ------
        StoreUnavailable, StoreReadOnly, StoreError
            If the server does not answer in time, refuses access, or fails otherwise.
        BadDocument
            If ``what`` is given and MongoDB cannot hold the document.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemError):  # pymongo's C code may turn one into the other
            self._leave_clients()
            raise
        except PyMongoError as error:
            raise store_error(self.label, what, error) from error

    # -- end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the clients. Any later use raises StoreError."""
        self._clients.close()

    def __repr__(self) -> str:
        return f"<Database {self.label}>"


class _Lease:
    """A function that ends the use of a database; further calls do nothing."""

    def __init__(self, database: Database) -> None:
        self._database: Database | None = database

    def __call__(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with database._lock:
                database._leases -= 1
                last = database._leases == 0
            if last:
                database.close()
