"""Immutable mappings and lists, of which the content of documents is made.

They are subclasses of dict and list, so that :func:`isinstance`, :func:`json.dumps`,
:func:`yaml.safe_dump` and all other readers of dicts and lists accept them. Making one costs as
much as making a dict or a list.

Copies of them, including pickled ones, are plain dicts and lists at every level: a copy is made in
order to change something, often below the first level (bluesky's own callbacks write to
``doc["parameters"]`` after :func:`copy.copy`). A shallow and a deep copy differ only in arrays: the
former shares them, read-only, the latter has its own.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import yaml

__all__ = ["FROZEN", "FrozenDict", "FrozenList", "freeze", "freeze_lists"]

ATOMS = frozenset({float, str, int, bool, type(None), bytes, uuid.UUID})


def _immutable(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError(
        "documents and the values in them are immutable; "
        "copy.deepcopy() or to_dict() of a document returns a copy to change"
    )


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed; if its values are frozen, it is frozen at every level.

    Raises
    ------
    TypeError
        If it is to be changed.
    """

    __slots__ = ()

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _immutable
    clear = pop = popitem = setdefault = update = __ior__ = _immutable  # type: ignore[assignment]

    def copy(self) -> dict[str, Any]:
        """A plain, changeable copy at every level; arrays are shared."""
        return dict(zip(self, map(_thawed, self.values())))

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return dict(zip(self, _deep_copies(self.values(), memo)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (self.copy(),))


class FrozenList(list[Any]):
    """A list that cannot be changed; if its items are frozen, it is frozen at every level.

    Raises
    ------
    TypeError
        If it is to be changed.
    """

    __slots__ = ()

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _immutable
    __iadd__ = __imul__ = _immutable  # type: ignore[assignment]
    append = extend = insert = pop = remove = clear = sort = reverse = _immutable  # type: ignore[assignment]

    def copy(self) -> list[Any]:
        """A plain, changeable copy at every level; arrays are shared."""
        return list(map(_thawed, self))

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return list(_deep_copies(self, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, (self.copy(),))


FROZEN = ATOMS | {FrozenDict, FrozenList}
"""Types of which all instances are frozen at every level."""


def _thawed(value: Any) -> Any:
    if type(value) in ATOMS:
        return value
    if isinstance(value, (FrozenDict, FrozenList)):
        return value.copy()
    return tuple(map(_thawed, value)) if type(value) is tuple else value


def _deep_copies(values: Iterable[Any], memo: dict[int, Any]) -> Iterator[Any]:
    return (v if type(v) in ATOMS else copy.deepcopy(v, memo) for v in values)


def freeze(value: Any) -> Any:
    """Return a value with its mappings and lists frozen; a frozen value is returned as it is.

    Tuples stay tuples, with their items frozen. Arrays become read-only views, instances of
    subclasses of :class:`str` plain text. Anything else is returned as it is.
    """
    if type(value) in FROZEN or isinstance(value, FrozenDict):
        return value
    if isinstance(value, dict):
        return FrozenDict(zip(value, _frozen_items(value.values())))
    if isinstance(value, list):
        return FrozenList(_frozen_items(value))
    if isinstance(value, tuple):
        frozen = _frozen_items(value)
        return value if frozen is value else tuple(frozen)
    if isinstance(value, np.ndarray) and value.flags.writeable:
        value = value.view()
        value.flags.writeable = False
    return str(value) if isinstance(value, str) else value  # a store may have its own str class


def _frozen_items(values: Any) -> Iterable[Any]:
    if FROZEN.issuperset(map(type, values)):
        return values
    return [freeze(item) for item in values]


def freeze_lists(values: Iterable[Any], levels: int = 1) -> list[Any]:
    """Return values with the lists among them frozen, down to a number of levels.

    This is :func:`freeze` for lists without dicts; the leaves are not inspected.
    """
    if levels == 1:
        return [FrozenList(v) if type(v) is list else v for v in values]
    return [FrozenList(freeze_lists(v, levels - 1)) if type(v) is list else v for v in values]


def _register_with_yaml() -> None:
    # PyYAML's safe dumper asks for the exact type, and refuses subclasses of dict.
    for representer in (yaml.representer.SafeRepresenter, yaml.representer.Representer):
        representer.add_multi_representer(FrozenDict, representer.represent_dict)
        representer.add_multi_representer(FrozenList, representer.represent_list)


_register_with_yaml()
