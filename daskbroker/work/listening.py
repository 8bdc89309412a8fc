"""Insertion of the documents that bluesky's 0MQ proxy forwards.

One thread receives messages and only puts each of them into a local file, so that 0MQ drops none
while the store is slow or away. The other thread takes them out in order and inserts them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..broker import DataBroker
from ..core.errors import ConfigError, DaskbrokerError, StoreError
from .inbox import Inbox
from .messages import SERIALIZERS, BadMessage, decoded
from .tolerant_insert import TolerantInserter

if TYPE_CHECKING:
    import zmq

LOOK_SECONDS = 0.1
"""Maximum seconds until :meth:`Listener.stop` is noticed."""

Message = tuple[str, dict[str, Any]]


def endpoint_of(address: str) -> str:
    """Return the endpoint that 0MQ connects to for the address of a proxy.

    For example, ``zmq://localhost:5568`` becomes ``tcp://localhost:5568``. An address without a
    scheme is taken as ``zmq://``.

    Raises
    ------
    ConfigError
        If the address has neither the form ``zmq://HOST:PORT`` (or ``tcp://``) nor ``ipc://PATH``.
    """
    scheme, sign, rest = address.partition("://")
    # A bare HOST:PORT means zmq://
    if not sign:
        scheme, rest = "zmq", address
    host, _, port = rest.rpartition(":")
    if scheme == "ipc" and rest:
        return address
    if scheme in ("zmq", "tcp") and host and port.isdecimal() and int(port) < 2**16:
        return f"tcp://{rest}"
    raise ConfigError(
        f"{address!r} is not an address of a 0MQ proxy; write zmq://HOST:PORT, with the port that "
        "subscribers connect to (5568 by default), or ipc:///PATH"
    )


class Listener:
    """A receiver that inserts the documents of a 0MQ proxy into a broker.

    Parameters
    ----------
    broker
        Broker that the documents are inserted into.
    address
        Address of the proxy that subscribers connect to; see :func:`endpoint_of`.
    spool
        Local folder in which messages wait until they are inserted. Documents that the store
        refuses are kept there, too.
    prefix
        Prefix of the messages to take. By default all messages are taken.
    serializer
        Serializer of the publisher: ``"pickle"`` (bluesky's default), ``"msgpack"`` or ``"json"``.
    taken
        Function that is called with the name and the document when a document has been stored.
    tell, warn
        Functions that are called with a line of text about what happens, and about problems. Both
        threads call them.

    Raises
    ------
    ConfigError
        If the address is not valid, or the spool cannot be created. :meth:`run` raises it if
        pyzmq is not installed or cannot connect to the address.
    """

    def __init__(
        self,
        broker: DataBroker,
        address: str,
        spool: Path,
        *,
        prefix: bytes = b"",
        serializer: str = "pickle",
        taken: Callable[[str, Mapping[str, Any]], None] = lambda name, doc: None,
        tell: Callable[[str], None] = print,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._endpoint = endpoint_of(address)
        self._prefix, self._serializer = prefix, serializer
        self._taken, self._tell, self._warn = taken, tell, warn
        self._ended = threading.Event()
        self._received = threading.Event()
        self._malformed = 0
        self._lost = False
        self._failure: BaseException | None = None
        name = "listen-" + hashlib.sha256(str(broker.uri).encode()).hexdigest()[:12]
        refused = f"refused-{name}-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
        self._inserter = TolerantInserter(broker, spool / refused, warn, self._wait)
        self._inbox = Inbox(spool, name)

    def stop(self) -> None:
        """Ask :meth:`run` to end once everything received is stored. Safe in signal handlers."""
        self._ended.set()

    def run(self) -> bool:
        """Receive and insert documents until :meth:`stop` is called.

        Messages that cannot be inserted, because the store takes nothing, stay in the spool. The
        next listener for this store and spool inserts them.

        Returns
        -------
        bool
            Whether every message that was received has been processed.

        Raises
        ------
        ConfigError
            If pyzmq is not installed, or 0MQ cannot connect to the address.
        Exception
            If receiving has failed, such as a MemoryError; what was received until then is stored.
        """
        try:
            socket = self._connected()
        # The address was wrong; the inbox is left to the next listener.
        except ConfigError:
            self._inbox.close()
            raise
        receiving = threading.Thread(target=self._receive, args=(socket,), daemon=True)
        receiving.start()
        try:
            self._insert_all()
        finally:
            self._ended.set()
            receiving.join()
            waiting = self._inbox.close()
        self._inserter.count_events(at_once=not waiting)
        for path in waiting:
            self._warn(f"documents wait in {path}; run daskbroker listen again to insert them")
        if self._failure is not None:
            raise self._failure
        # The first one was reported when it came.
        if self._malformed > 1:
            self._warn(f"{self._malformed:,} messages held no document and are lost")
        for uid in self._inserter.open_runs:
            self._warn(f"run {uid} has no stop yet; its documents are not received from now on")
        return not waiting and not self._lost

    # -- receiving ---------------------------------------------------------------------------

    def _connected(self) -> zmq.Socket:
        try:
            import zmq
        except ImportError:
            raise ConfigError(
                "listening to 0MQ needs pyzmq: pip install 'daskbroker[zmq]'"
            ) from None
        socket = zmq.Context().socket(zmq.SUB)
        socket.set(zmq.RCVHWM, 0)  # never drop here; the thread that receives is quick
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.TCP_KEEPALIVE, 1)  # or a host that vanished is waited for
        socket.subscribe(b"")
        self._monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            _close(socket)
            raise ConfigError(f"0MQ cannot connect to {self._endpoint}: {error}") from error
        return socket

    def _receive(self, socket: zmq.Socket) -> None:
        """Put messages into the inbox until :meth:`stop`, and then those that have arrived already.

        Runs in a thread of its own.
        """
        import zmq

        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        try:
            while True:
                ended = self._ended.is_set()
                found = dict(poller.poll(0 if ended else 1000 * LOOK_SECONDS))
                if self._monitor in found:
                    self._tell_connection()
                # All of it is read before the listener ends, so that received messages are kept.
                if socket in found:
                    self._put(b" ".join(socket.recv_multipart()))
                elif ended:
                    return
        except BaseException as error:
            self._failure = error
        finally:
            _close(socket)
            self._received.set()

    def _tell_connection(self) -> None:
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._tell(f"connected to {self._endpoint}")
        elif event == zmq.EVENT_DISCONNECTED and not self._ended.is_set():
            self._warn(
                f"the connection to {self._endpoint} is lost; documents published before it is "
                "restored are not received"
            )

    def _put(self, message: bytes) -> None:
        # The next listener may have another serializer, so each record names its own.
        record = self._serializer.encode() + b" " + message
        warned = False
        while True:
            try:
                self._inbox.put(record)
                return
            except DaskbrokerError as error:
                # Once, however long the disk is full.
                if not warned:
                    self._warn(f"the spool cannot be written, and messages wait in memory: {error}")
                warned = True
                # The listener is ended while the disk refuses the message.
                if self._ended.wait(1.0):
                    self._lost = True
                    self._warn(f"a message of {len(message):,} bytes is lost: {error}")
                    return

    # -- inserting ---------------------------------------------------------------------------

    def _insert_all(self) -> None:
        """Insert waiting and new messages until :meth:`stop`, or until the store takes nothing."""
        while True:
            received = self._received.is_set()
            record = self._inbox.first(0 if received else LOOK_SECONDS)
            if record is not None:
                try:
                    self._insert(record)
                except StoreError:
                    return  # without drop(), so that the message stays for the next listener
                self._inbox.drop()
            # Everything that was received is inserted.
            elif received:
                return
            self._inserter.count_events()

    def _insert(self, record: bytes) -> None:
        serializer, _, message = record.partition(b" ")
        try:
            found = self._document(message, serializer.decode())
        except BadMessage as error:
            self._malformed += 1
            # One broken publisher must not fill the log.
            if self._malformed == 1:
                self._warn(
                    "a message holds no document and is lost; further ones are only "
                    f"counted: {error}"
                )
            return
        # A document that was refused is in the file of refused ones.
        if found is not None and self._inserter.insert(*found):
            self._taken(*found)

    def _document(self, message: bytes, serializer: str) -> Message | None:
        # Written by a newer version.
        if serializer not in SERIALIZERS:
            raise BadMessage(f"the spool has a message by an unknown serializer {serializer!r}")
        return decoded(message, serializer, self._prefix)

    def _wait(self, seconds: float) -> bool:
        return not self._ended.wait(seconds)


def _close(socket: zmq.Socket) -> None:
    """Close a socket with its monitor, and the context that was made for it."""
    socket.disable_monitor()
    socket.context.destroy(linger=0)
