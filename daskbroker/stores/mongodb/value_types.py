"""Types of values, which the server sends without the values, and their conversion to kinds.

A type is text: the name of a BSON type, or ``array<2,double|int|>`` for an array of two with values
of these types. Arrays may hold arrays, as deep as the data key declares. If the dtype of the NumPy
array that was inserted is noted, it follows: ``array<2,int|>u2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from bson.int64 import Int64

from ...core.column_kinds import ColumnKind
from ...core.leaves import EXACT_INTEGER
from .bson_documents import ARRAYS_FIELD, SIDE_FIELD, is_simple

MAX_ARRAY_DEPTH = 8
"""Maximum depth of nested arrays that are looked into."""
_TYPE = re.compile(
    r"array<\d+,|array|double|string|objectId|object|binData|bool|date|null|missing|int|"
    r"long|decimal|undefined|regex|timestamp|symbol|javascriptWithScope|javascript|dbPointer|"
    r"minKey|maxKey"
)
_NOTED = re.compile(r"[iu][124]|u8|f4")
_LEAVES = {
    ("double",): "<f8", ("int",): "i8", ("long",): "<i8", ("int", "long"): "<i8",
    ("bool",): "|b1", ("string",): "<U",
}  # fmt: skip
"""Leaf types of arrays that :func:`daskbroker.core.codec.encode` has a plain column for."""
_SCALARS = {"double", "int", "long", "bool", "string", "null", "binData"}

# -- expressions -----------------------------------------------------------------------------


def value_of(key: str) -> Any:
    """Return the expression for the value under a data key, which may have any characters."""
    return _member("$data", key)


def _member(mapping: str, key: str) -> Any:
    # Other keys would be taken for paths or operators.
    if is_simple(key):
        return f"{mapping}.{key}"
    return {"$getField": {"field": {"$literal": key}, "input": mapping}}


def depth_of(claim: Mapping[str, Any]) -> int:
    """Return the number of declared dimensions of an array, at most :data:`MAX_ARRAY_DEPTH`.

    The fields of a structured dtype count as one more dimension. Scalars have none.
    """
    # Neither shape nor dtype declares an array, so the value's type says all.
    if not claim.get("shape") and claim.get("dtype") != "array":
        return 0
    rows = isinstance(claim.get("dtype_numpy"), list)
    return min(MAX_ARRAY_DEPTH, max(1, len(claim.get("shape") or ())) + rows)


def noted_type_of(key: str, claim: Mapping[str, Any]) -> Any:
    """Return the expression for the type of an event's value, followed by its noted dtype."""
    depth, value = depth_of(claim), value_of(key)
    # Only arrays have noted dtypes.
    if not depth:
        return type_of(value, depth)
    noted = _member(f"${SIDE_FIELD}.{ARRAYS_FIELD}", key)
    return {"$concat": [type_of(value, depth), {"$ifNull": [noted, ""]}]}


def type_of(value: Any, depth: int) -> Any:
    """Return the expression for a value's type; arrays are looked into to the given depth.

    A ``long`` that a float can hold exactly is called ``int``, as it is when it is encoded.
    """
    if depth == 0:
        small = [{"$lte": [value, Int64(EXACT_INTEGER)]}, {"$gte": [value, Int64(-EXACT_INTEGER)]}]
        name = {"$type": value}
        return {"$cond": [{"$and": [{"$eq": [name, "long"]}, *small]}, "int", name]}
    each = f"e{depth}"
    inside = {"$map": {"input": value, "as": each, "in": type_of(f"$${each}", depth - 1)}}
    joined = {
        "$reduce": {
            "input": {"$setUnion": [inside, []]},
            "initialValue": "",
            "in": {"$concat": ["$$value", "$$this", "|"]},
        }
    }
    array = {"$concat": ["array<", {"$toString": {"$size": value}}, ",", joined, ">"]}
    return {"$cond": [{"$isArray": [value]}, array, {"$type": value}]}


# -- texts -----------------------------------------------------------------------------------


@lru_cache(maxsize=10_000)
def split_types(text: str) -> tuple[str, ...]:
    """Return the types that follow each other in a text."""
    return tuple(_types(text, 0))


def _types(text: str, position: int) -> Iterator[str]:
    while position < len(text):
        end = _end_of(text, position)
        yield text[position:end]
        position = end + text.startswith("|", end)


def _end_of(text: str, position: int) -> int:
    found = _TYPE.match(text, position)
    if found is None:
        raise ValueError(f"{text[position:]!r:.60} does not begin with a BSON type")
    position = found.end()
    # A scalar; the pattern for arrays ends with the comma before their items.
    if not found.group().endswith(","):
        return position
    while not text.startswith(">", position):
        position = _end_of(text, position) + 1  # skip the "|" behind it
    noted = _NOTED.match(text, position + 1)
    return noted.end() if noted else position + 1


# -- kinds -----------------------------------------------------------------------------------


def kind_of_types(types: set[str]) -> ColumnKind | None:
    """Return the kind that :func:`daskbroker.core.codec.encode` gives values of these types.

    None if no row has a value.
    """
    if types == {"missing"}:
        return None
    nulls = bool(types & {"missing", "null"})
    types = types - {"missing", "null"}
    if not types:
        return ColumnKind("null", True)
    if types <= {"int", "long"}:
        return ColumnKind("long" if "long" in types else "int", nulls)
    if types == {"int", "double"}:
        # Integers among floats, as the codec keeps them; a "long" would be rounded and is left to
        # JSON.
        return ColumnKind("number", nulls)
    names = {"double": "float", "bool": "bool", "string": "str"}
    if len(types) == 1 and (name := names.get(next(iter(types)))):
        return ColumnKind(name, nulls)
    return _array_kind(types, nulls=nulls)


def _array_kind(types: set[str], *, nulls: bool) -> ColumnKind:
    """Return the kind that :func:`daskbroker.core.leaves.cell_form` would find for the cells."""
    unknown = ColumnKind("json", nulls)
    shape: list[int] = []
    noted = {one[one.rindex(">") + 1 :] for one in types if ">" in one and one != "array<0,>"}
    types = {one[: one.rindex(">") + 1] if ">" in one else one for one in types}
    while types and all(one.startswith("array<") for one in types):
        lengths = {int(one[6 : one.index(",")]) for one in types}
        types = {t for one in types for t in split_types(one[one.index(",") + 1 : -1])}
        # Lengths differ: a list, if there is no shape around it and only scalars in it.
        if len(lengths) > 1:
            if shape or not types <= _SCALARS:
                return unknown
            return _leaf_kind("list", types, (), nulls=nulls, noted=noted)
        shape.append(lengths.pop())
    if not types <= _SCALARS:
        return unknown
    return _leaf_kind("array", types, tuple(shape), nulls=nulls, noted=noted)


def _leaf_kind(
    name: str, types: set[str], shape: tuple[int, ...], *, nulls: bool, noted: set[str]
) -> ColumnKind:
    leaf = _LEAVES.get(tuple(sorted(types)))
    if leaf is not None:
        return ColumnKind(name, nulls, _noted_leaf(leaf, noted), shape)
    # Without any leaf, or with nulls alone, the codec stores JSON of this shape.
    if not types:
        return ColumnKind("json", nulls, "none", shape)
    if types == {"null"}:
        return ColumnKind("json", nulls, "null", shape)
    return ColumnKind("json", nulls, "<f8" if types <= {"int", "double", "null"} else "", shape)


def _noted_leaf(leaf: str, noted: set[str]) -> str:
    """Return the leaf type, narrowed to the noted dtype if all cells have the same one."""
    dtype = next(iter(noted)) if len(noted) == 1 else ""
    # A dtype is narrower than its leaf type; if it does not fit to that, cells differ.
    if not dtype or (dtype == "f4") != (leaf == "<f8"):
        return leaf
    # NumPy's name of uint64 that fit an int64, and of larger ones.
    if dtype == "u8":
        return "u8" if leaf == "i8" else "<u8"
    return np.dtype(dtype).newbyteorder("<").str
