"""Reader of Thrift's compact protocol, in which Parquet's footers are written.

Arrow ends the process when it is asked for some columns of a damaged footer (by a C++ exception
that is not caught), so a footer that is not known to be sound is read here.
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
INTEGERS = (4, 5, 6)  # of 16, 32 and 64 bits, all written with as few bytes as they need
LONG_LIST = 15  # the size of a list does not fit into its head, and follows


def read_struct(data: bytes) -> dict[int, Any]:
    """Read a struct; return its fields by number.

    Nested structs are mappings too, texts are bytes, maps are lists of pairs.

    Raises
    ------
    ValueError, IndexError
        If the bytes are not a valid struct.
    """
    return _Reader(data).struct()


class _Reader:
    """Reader of consecutive values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> dict[int, Any]:
        """Read fields up to the zero byte that ends them."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            # The upper half is the distance from the last field's number; 0: the number follows.
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            found[number] = kind == TRUE if kind in (TRUE, FALSE) else self._value(kind)
        return found

    def _value(self, wire_type: int) -> Any:
        if wire_type in INTEGERS:
            return self._integer()
        if wire_type in (TRUE, FALSE, BYTE):  # booleans of a list; those of fields are in the head
            return self._byte()
        if wire_type == DOUBLE:
            return self._bytes(8)
        if wire_type == BINARY:
            return self._bytes(self._size())
        if wire_type in (LIST, SET):
            head = self._byte()
            size = head >> 4 if head >> 4 != LONG_LIST else self._size()
            return [self._value(head & 15) for _ in range(size)]
        if wire_type == MAP:
            size = self._size()
            kinds = self._byte() if size else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]
        if wire_type == STRUCT:
            return self.struct()
        raise ValueError(f"there is no type {wire_type}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("a value is longer than its bytes")
        return self._data[self._at - size : self._at]

    def _size(self) -> int:
        """Read an unsigned integer: seven bits a byte, the lowest first."""
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def _integer(self) -> int:
        value = self._size()
        return (value >> 1) ^ -(value & 1)
