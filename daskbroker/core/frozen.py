"""Immutable mappings and lists, of which the content of documents is made.

They are subclasses of dict and list, so that :func:`isinstance`, :func:`json.dumps`,
:func:`yaml.safe_dump` and all other readers of dicts and lists accept them. Making one costs as
much as making a dict or a list. :class:`ArrayList` is a list that remembers the dtype of an array.

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

from .field_rows import array_of_rows, lists_of

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
    clear = pop = popitem = setdefault = update = __ior__ = _immutable

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
    __iadd__ = __imul__ = _immutable
    append = extend = insert = pop = remove = clear = sort = reverse = _immutable

    def copy(self) -> list[Any]:
        """A plain, changeable copy at every level; arrays are shared."""
        return list(map(_thawed, self))

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return list(_deep_copies(self, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, (self.copy(),))


_set = object.__setattr__


class ArrayList(FrozenList):
    """List of the values of an array, which remembers the array's dtype and shape.

    A document that a store returns has them for arrays whose dtype their values do not tell, so
    that tables, and the store that the document is inserted into, have that dtype. Copies of it
    are plain lists.

    Parameters
    ----------
    values
        Values of the array, as nested lists; see :func:`~.field_rows.lists_of`.
    dtype, shape
        Those of the array.
    """

    __slots__ = ("dtype", "shape")
    dtype: np.dtype
    shape: tuple[int, ...]

    def __init__(self, values: Iterable[Any], dtype: np.dtype, shape: Iterable[int]) -> None:
        super().__init__(_frozen_items(values))
        _set(self, "dtype", dtype)
        _set(self, "shape", tuple(shape))

    @classmethod
    def of_numbers(cls, array: np.ndarray) -> ArrayList:
        """Return the list of an array of numbers, of one dimension or more."""
        found = cls.__new__(cls)
        list.__init__(found, array.tolist() if array.ndim == 1 else map(frozen_array, array))
        _set(found, "dtype", array.dtype)
        _set(found, "shape", array.shape)
        return found

    def array(self) -> np.ndarray:
        """Return a new array of the values."""
        if self.dtype.names:
            return array_of_rows(self, self.dtype, self.shape)
        return np.array(self, self.dtype).reshape(self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ArrayList, (super().copy(), self.dtype, self.shape))


FROZEN = ATOMS | {FrozenDict, FrozenList, ArrayList}
"""Types of which all instances are frozen at every level."""


def _thawed(value: object) -> Any:
    if type(value) in ATOMS:
        return value
    if isinstance(value, (FrozenDict, FrozenList)):
        return value.copy()
    return tuple(map(_thawed, value)) if type(value) is tuple else value


def _deep_copies(values: Iterable[Any], memo: dict[int, Any]) -> Iterator[Any]:
    return (v if type(v) in ATOMS else copy.deepcopy(v, memo) for v in values)


def to_pickle(value: Any) -> Any:
    """Return the plain form of a frozen value, in which each `ArrayList` stays one."""
    if isinstance(value, FrozenDict):
        return dict(zip(value, map(to_pickle, value.values())))
    if isinstance(value, FrozenList) and type(value) is not ArrayList:
        return list(map(to_pickle, value))
    return tuple(map(to_pickle, value)) if type(value) is tuple else value


def freeze(value: Any) -> Any:
    """Return a value with its mappings and lists frozen; a frozen value is returned as it is.

    Tuples stay tuples, with their items frozen. Arrays become read-only views, structured ones
    lists of rows (:class:`ArrayList`), instances of subclasses of :class:`str` plain text. Anything
    else is returned as it is.
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
    if isinstance(value, np.ndarray) and value.dtype.names:
        return ArrayList(lists_of(value), value.dtype, value.shape)
    if isinstance(value, np.ndarray) and value.flags.writeable:
        value = value.view()
        value.flags.writeable = False
    return str(value) if isinstance(value, str) else value  # a store may have its own str class


def _frozen_items(values: Any) -> Iterable[Any]:
    if FROZEN.issuperset(map(type, values)):
        return values
    return [item if type(item) in FROZEN else freeze(item) for item in values]


def frozen_array(array: np.ndarray) -> FrozenList:
    """Return an array of numbers, of one dimension or more, as a list.

    It is made only when its event is, because numbers take four times the space as objects.
    """
    return FrozenList(array.tolist() if array.ndim == 1 else map(frozen_array, array))


def freeze_lists(values: Iterable[Any], levels: int = 1) -> Iterator[Any]:
    """Yield values with the lists among them frozen, down to a number of levels.

    This is :func:`freeze` for lists without dicts; the leaves are not inspected.
    """
    if levels == 1:
        return (FrozenList(v) if type(v) is list else v for v in values)
    return (FrozenList(freeze_lists(v, levels - 1)) if type(v) is list else v for v in values)


def _register_with_yaml() -> None:
    # PyYAML's safe dumper asks for the exact type, and refuses subclasses of dict.
    for representer in (yaml.representer.SafeRepresenter, yaml.representer.Representer):
        representer.add_multi_representer(FrozenDict, representer.represent_dict)
        representer.add_multi_representer(FrozenList, representer.represent_list)


_register_with_yaml()
