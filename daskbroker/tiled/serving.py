"""A Tiled server of one broker for a single user: on this machine only, with an API key."""

from __future__ import annotations

import os
import secrets
import socket
from copy import deepcopy
from typing import Any
from urllib.parse import quote_plus

import uvicorn
from tiled.config import Authentication
from tiled.media_type_registration import default_serialization_registry
from tiled.server.app import build_app

from ..broker import DataBroker
from ..core.errors import ConfigError
from .catalog import BrokerCatalog
from .documents import MEDIA_TYPE, export_documents
from .queries import RUN_SPEC
from .tables import TABLE_SPEC, export_rows

LOOPBACK = "127.0.0.1"
KEY_VARIABLE = "TILED_SINGLE_USER_API_KEY"


class Server:
    """A server of one broker on the loopback address.

    Parameters
    ----------
    db
        Broker to serve; it need not be open for writing.
    port
        Port to listen on; any free one if 0.

    Attributes
    ----------
    key
        API key that clients need: ``TILED_SINGLE_USER_API_KEY`` if it is set, else a random one.
    port
        Port that the server listens on.

    Raises
    ------
    ConfigError
        If the port is taken, or the key does not consist of ASCII letters and digits.
    """

    def __init__(self, db: DataBroker, port: int = 8000) -> None:
        self.key = os.environ.get(KEY_VARIABLE) or secrets.token_hex(16)
        if not (self.key.isascii() and self.key.isalnum()):
            raise ConfigError(f"{KEY_VARIABLE}: a key may have only letters and digits")
        self._socket = _listening(port)
        self._app = _app(db, self.key)
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        """URL for a browser, or for ``tiled.client.from_uri``; it contains the key."""
        return f"http://{LOOPBACK}:{self.port}/?api_key={quote_plus(self.key)}"

    def run(self) -> None:
        """Serve until interrupted."""
        config = uvicorn.Config(self._app, log_level="warning", timeout_graceful_shutdown=1)
        with self._socket:
            uvicorn.Server(config).run(sockets=[self._socket])


def _app(db: DataBroker, key: str) -> Any:
    registry = deepcopy(default_serialization_registry)
    registry.register(RUN_SPEC, MEDIA_TYPE, export_documents)
    registry.register(TABLE_SPEC, MEDIA_TYPE, export_rows)
    return build_app(
        BrokerCatalog(db),
        authentication=Authentication(single_user_api_key=key, allow_anonymous_access=False),
        serialization_registry=registry,
    )


def _listening(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"port {port} of {LOOPBACK} cannot be listened on: {error.strerror}; give another "
            "--port, or 0 for one that is free"
        ) from error
    return found
