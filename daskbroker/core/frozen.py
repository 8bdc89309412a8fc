"""Mappings and lists that nobody can change: what the insides of documents are made of.

Both are subclasses of what they stand for, so that :func:`isinstance`, :func:`json.dumps`,
:func:`yaml.safe_dump` and everything else that reads dicts and lists take them as such. Making
one costs as much as making a dict or a list.

Copies of them, pickled ones too, are plain dicts and lists at every level: whoever copies wants
to change something, often below the first level (:func:`copy.copy` is followed by a write to
``doc["parameters"]`` in bluesky's own callbacks). Only arrays tell a shallow copy, which shares
them, not to be written to, from a deep one, which has its own.
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
        "documents are immutable, their insides too; "
        "copy.deepcopy() or to_dict() of a document gives one to change"
    )


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed; what is made of frozen values is frozen throughout.

    Raises
    ------
    TypeError
        On any attempt to change it.
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
    """A list that cannot be changed; what is made of frozen items is frozen throughout.

    Raises
    ------
    TypeError
        On any attempt to change it.
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
"""Types of which all instances are frozen throughout."""


def _thawed(value: Any) -> Any:
    if type(value) in ATOMS:
        return value
    if isinstance(value, (FrozenDict, FrozenList)):
        return value.copy()
    return tuple(map(_thawed, value)) if type(value) is tuple else value


def _deep_copies(values: Iterable[Any], memo: dict[int, Any]) -> Iterator[Any]:
    return (v if type(v) in ATOMS else copy.deepcopy(v, memo) for v in values)


def freeze(value: Any) -> Any:
    """A value that is made of frozen mappings and lists; what is frozen already is itself.

    Tuples stay tuples, of frozen items. Arrays become views that cannot be written to. Anything
    else is left as it is.
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
    return str(value) if isinstance(value, str) else value  # plain, of a store's own kind


def _frozen_items(values: Any) -> Iterable[Any]:
    if FROZEN.issuperset(map(type, values)):
        return values
    return [freeze(item) for item in values]


def freeze_lists(values: Iterable[Any], levels: int = 1) -> list[Any]:
    """Values of which those that are lists, of so many levels and no dicts in them, are frozen.

    As :func:`freeze`, without a look at each leaf.
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
