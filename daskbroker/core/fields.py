"""Field selection: the columns of a table, a dataset or a stream of documents.

A field is an exact name, a regular expression that matches data keys fully, or a name with a
namespace: ``data:x`` (data keys only), ``ts:x`` (timestamps), and the projections of metadata
into constant columns ``start:sample.name``, ``stop:exit_status``,
``config:eiger:exposure_time``. The namespaces answer the manifesto's "possible collision when
we merge the config from all of the objects".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .documents import ALL
from .errors import BadField, BadQuery, FieldNotFound
from .name_lists import listed
from .operators import index_of
from .patterns import full_matches

RESERVED = frozenset({"time", "seq_num", "uid", "descriptor", "run"})
PROJECTIONS = ("start", "stop", "config")
NAMESPACES = ("data:", "ts:", "start:", "stop:", "config:")


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a table.

    Attributes
    ----------
    role
        ``"data"``, ``"ts"`` (timestamp of a data key), ``"start"``, ``"stop"``, ``"config"``
        (metadata), or the name of a column every stream has: ``"time"``, ``"uid"``,
        ``"descriptor"``, ``"run"``.
    key
        Data key, or path of the metadata.
    name
        Name of the column.
    """

    role: str
    key: str
    name: str


def shown_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the column name of each data key.

    The column has the name of the data key, unless that is reserved (``time``, ``seq_num``,
    ``uid``, ``descriptor``, ``run``), is the ``ts_`` name of another key's timestamps, or starts
    with the prefix of a namespace: then the column is ``data:<key>``.
    """
    keys = list(keys)
    stamps = {f"ts_{key}" for key in keys}
    clash = {k for k in keys if k in RESERVED or k in stamps or k.startswith(NAMESPACES)}
    return {key: f"data:{key}" if key in clash else key for key in keys}


def data_keys_of(descriptors: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the union of the data keys, in the order of the descriptors."""
    return list(dict.fromkeys(key for d in descriptors for key in d.get("data_keys", {})))


def select(
    fields: Any, descriptors: Sequence[Mapping[str, Any]], *, timestamps: bool = False
) -> list[Field]:
    """Return the columns that a selection requests; ``time`` is always the first.

    Parameters
    ----------
    fields
        None or ``ALL`` for every data key; a name; or an iterable of names, compiled patterns
        and namespaced names.
    descriptors
        Descriptors of the stream.
    timestamps
        Whether to add the column ``ts_<key>`` of every selected data key.

    Raises
    ------
    FieldNotFound
        If a field matches nothing; the message lists what there is. The error is also a BadQuery
        if the field is not a valid pattern, or one that takes too long.
    """
    keys = data_keys_of(descriptors)
    names = shown_names(keys)
    found: dict[str, Field] = {"time": Field("time", "", "time")}
    wanted = keys if fields is None or fields is ALL else _as_list(fields)
    # All data keys are taken by name, as a key may look like a pattern.
    exact = fields is None or fields is ALL
    for item in wanted:
        matches = (
            [Field("data", item, names[item])] if exact else _match(item, keys, names, descriptors)
        )
        found.update((match.name, match) for match in matches)
    if timestamps:
        # After all data keys, so that the columns of stamps come last.
        for match in [f for f in found.values() if f.role == "data"]:
            found[f"ts_{match.key}"] = Field("ts", match.key, f"ts_{match.key}")
    return list(found.values())


def select_there(fields: Any, descriptors: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """Return the part of a selection that these descriptors have; others may have the rest.

    Parameters
    ----------
    fields, descriptors
        See :func:`select`; fields that match nothing are dropped.

    Returns
    -------
    list or None
        Items for :func:`select`. None if the selection names data keys or configuration, which
        are a stream's own, and these descriptors have none of them: metadata of the run, and the
        columns that every stream has, are no reason to show a stream.
    """
    items = _as_list(fields)
    there = [item for item in items if _is_there(item, descriptors)]
    own = [item for item in items if not _is_in_every_stream(item)]
    return None if own and not any(item in there for item in own) else there


class FieldsOfRuns:
    """A selection for many runs, each of which may lack some of the fields.

    Parameters
    ----------
    fields
        See :func:`select`.
    """

    def __init__(self, fields: Any) -> None:
        self._all = fields is None or fields is ALL
        self._fields = [] if self._all else _as_list(fields)
        self._unseen = [item for item in self._fields if not _is_in_every_stream(item)]
        self._latest: Sequence[Mapping[str, Any]] = ()
        self._metadata = MetadataOfRuns()

    def there(
        self,
        descriptors: Sequence[Mapping[str, Any]],
        start: Mapping[str, Any],
        stop: Mapping[str, Any] | None,
    ) -> Any:
        """Return the part for a run with these documents, or None if the run is left out."""
        if self._all:
            return ALL
        self._latest = descriptors
        self._unseen = [item for item in self._unseen if not _is_there(item, descriptors)]
        there = select_there(self._fields, descriptors)
        if there is not None:
            self._metadata.look(select(there, descriptors), start, stop)
        return there

    def check(self) -> None:
        """Check, after the last run, that each of the fields was in some run.

        Raises
        ------
        FieldNotFound
            If no run had one of them.
        """
        for item in self._unseen:
            try:
                # Asked again for its error, which names the nearest keys of the last run.
                select([item], self._latest)
            except FieldNotFound as error:
                raise FieldNotFound(f"none of the runs has it; in the last one {error}") from None
        self._metadata.check()


class MetadataOfRuns:
    """Whether projected keys of start and stop are in the documents of any run.

    A run that lacks a key which another run has is a gap; a key that no run has is a mistake. A
    run without a stop may still get any key of it, so it says nothing about those.
    """

    def __init__(self) -> None:
        self._seen: set[Field] = set()
        self._lacking: dict[Field, tuple[str, Mapping[str, Any]]] = {}
        self._runs: set[str] = set()

    def look(
        self, fields: Iterable[Field], start: Mapping[str, Any], stop: Mapping[str, Any] | None
    ) -> None:
        """Look for the keys of some fields in one run; fields of other roles are ignored."""
        self._runs.add(start["uid"])
        for field in fields:
            if field.role not in ("start", "stop") or field in self._seen:
                continue
            document = start if field.role == "start" else stop
            # A run in progress lacks its stop, which says nothing about keys.
            if document is None:
                continue
            if _path(document, field.key, _ABSENT) is _ABSENT:
                self._lacking[field] = (start["uid"], document)
            else:
                self._seen.add(field)

    def check(self) -> None:
        """Check that each key was in some run.

        Raises
        ------
        FieldNotFound
            If no run had one of them; the message lists the keys of the last run.
        """
        for field, (uid, document) in self._lacking.items():
            if field in self._seen:
                continue
            several = len(self._runs) > 1
            runs = f"none of {len(self._runs):,} runs has" if several else f"run {uid!r} has no"
            there = f"in {uid!r} there are" if several else "there are"
            # A loop over runs meets this error at the first run without the key.
            gap = "" if several else "; in one table of several runs, such a run has None there"
            if (dotted := _BRACKETS.sub(r".\1", field.name)) != field.name:
                gap = f". An item of a list is written with a dot: {dotted:.200}"
            raise FieldNotFound(
                f"the field {field.name!r:.200} names no metadata: {runs} {field.key!r:.200} in "
                f"its {field.role} document; {there}: {_keys_near(document, field.key)}{gap}"
            )


def check_metadata(
    fields: Iterable[Field], runs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]]
) -> None:
    """Check that each projected key of start and stop is in some of the runs.

    Raises
    ------
    FieldNotFound
        If a key is in none of them.
    """
    wanted = [field for field in fields if field.role in ("start", "stop")]
    if wanted:
        metadata = MetadataOfRuns()
        for start, stop in runs:
            metadata.look(wanted, start, stop)
        metadata.check()


def _is_there(item: object, descriptors: Sequence[Mapping[str, Any]]) -> bool:
    try:
        select([item], descriptors)
    except BadField:  # the field itself is wrong, whatever the descriptors have
        raise
    except FieldNotFound:
        return False
    return True


def _is_in_every_stream(item: object) -> bool:
    return isinstance(item, str) and (item in RESERVED or item.startswith(("start:", "stop:")))


def _as_list(fields: object) -> list[Any]:
    if isinstance(fields, (str, re.Pattern)):
        return [fields]
    if not isinstance(fields, Iterable):
        raise FieldNotFound(f"fields takes names and patterns, not {fields!r:.100}")
    return list(fields)


def _match(
    item: object, keys: list[str], names: dict[str, str], descriptors: Sequence[Mapping[str, Any]]
) -> list[Field]:
    if isinstance(item, re.Pattern):
        return _by_pattern(item, keys, names, str(item.pattern))
    if not isinstance(item, str):
        raise FieldNotFound(f"the field {item!r:.200} is neither text nor a compiled pattern")
    if item in RESERVED:
        # It is the index of every table already.
        return [] if item == "seq_num" else [Field(item, "", item)]
    space, _, rest = item.partition(":")
    # First, so that each column is selected by its name: a data key "data:x" has "data:data:x".
    if space == "data" and rest in names:
        return [Field("data", rest, names[rest])]
    if item in names:
        return [Field("data", item, names[item])]
    if space in PROJECTIONS and rest:
        return [_projection(space, rest, item, descriptors)]
    if space in ("data", "ts") and rest:
        # An exact name first: many data keys are valid patterns of something else.
        chosen = [rest] if rest in names else _full_matches(rest, keys)
        if chosen and space == "data":
            return [Field("data", key, names[key]) for key in chosen]
        if chosen:
            return [Field("ts", key, f"ts_{key}") for key in chosen]
    # Last of the names, so that a data key `ts_x` is selected by its own.
    if item.startswith("ts_") and item[3:] in names:
        return [Field("ts", item[3:], item)]
    return _by_pattern(item, keys, names, item)


def _by_pattern(pattern: object, keys: list[str], names: dict[str, str], shown: str) -> list[Field]:
    chosen = _full_matches(pattern, keys)
    if not chosen:
        raise FieldNotFound(
            f"the field {shown!r:.200} matches no data key; there are: {listed(keys, shown)}"
        )
    return [Field("data", key, names[key]) for key in chosen]


def _full_matches(pattern: Any, keys: list[str]) -> list[str]:
    try:
        return full_matches(pattern, keys, "fields")
    except BadQuery as error:
        shown = str(getattr(pattern, "pattern", pattern))
        raise BadField(
            f"the field {shown:.100} is neither a data key nor a valid regular expression: "
            f"{error}; there are: {listed(keys, shown)}"
        ) from None


def _projection(
    space: str, path: str, item: str, descriptors: Sequence[Mapping[str, Any]]
) -> Field:
    # Only configuration is checked: any key may be missing from a start or stop.
    if space == "config" and not any(configuration_value(d, path) is not None for d in descriptors):
        devices = sorted({device for d in descriptors for device in d.get("configuration", {})})
        device = path.partition(":")[0]
        raise FieldNotFound(
            f"the field {item!r} names no configuration; use config:<device>:<key>, "
            f"devices are: {listed(devices, device)}{_keys_of_device(device, descriptors)}"
        )
    return Field(space, path, item)


def _keys_of_device(device: str, descriptors: Sequence[Mapping[str, Any]]) -> str:
    """Return the configuration keys of a device as an addition to a message."""
    configurations = [d.get("configuration", {}).get(device) or {} for d in descriptors]
    keys = dict.fromkeys(key for one in configurations for key in one.get("data", {}))
    return f"; keys of {device}: {listed(keys)}" if keys else ""


# -- projections -----------------------------------------------------------------------------


def project(
    field: Field,
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    descriptor: Mapping[str, Any],
) -> Any:
    """Return the value of a projected field for one descriptor's events, or None if absent."""
    if field.role == "config":
        found = configuration_value(descriptor, field.key)
        return None if found is None else found[0]
    return _path(start if field.role == "start" else stop, field.key)


_ABSENT = object()
_BRACKETS = re.compile(r"\[(\d+)\]")


def _keys_near(document: Mapping[str, Any], path: str) -> str:
    """Return the keys beside the first step of a path that a document lacks, for messages."""
    steps = path.split(".")
    for known in range(len(steps) - 1, -1, -1):
        parent = ".".join(steps[:known])
        found = _path(document, parent, None) if parent else document
        if isinstance(found, Mapping):
            before = f"{parent}." if parent else ""
            return listed([f"{before}{key}" for key in found], path)
    return "none"


def _path(value: object, path: str, absent: object = None) -> Any:
    # A key with dots in it goes before the path of the same text.
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and (index := index_of(step, value)) is not None:
            value = value[index]
        else:
            return absent
    return value


def configuration_value(
    descriptor: Mapping[str, Any], path: str
) -> tuple[Any, float | None] | None:
    """Return value and timestamp of ``device:key``; the key may lack the device's prefix."""
    device, names = _configuration_names(path)
    configuration = descriptor.get("configuration", {}).get(device)
    if configuration is None:
        return None
    for name in names:
        if name in configuration.get("data", {}):
            return configuration["data"][name], configuration.get("timestamps", {}).get(name)
    return None


def configuration_claim(field: Field, descriptor: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ``data_keys`` entry of a ``config:device:key`` field, or nothing."""
    device, names = _configuration_names(field.key)
    claims = descriptor.get("configuration", {}).get(device, {}).get("data_keys") or {}
    for name in names:
        if isinstance(claims, Mapping) and isinstance(claims.get(name), Mapping):
            return dict(claims[name])
    return {}


def _configuration_names(path: str) -> tuple[str, tuple[str, str]]:
    """Return the device of ``device:key``, and the names that the key may have.

    Devices prefix their configuration by their own name, which may be left out.
    """
    device, _, key = path.partition(":")
    return device, (key, f"{device}_{key}")
