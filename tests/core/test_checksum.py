"""Any change of stored bytes is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.core.checksum import with_checksum, without_checksum
from daskbroker.core.documents import pack, unpack
from daskbroker.core.errors import StoreDamaged


@given(st.binary(min_size=1))
def test_bytes_come_back(data):
    assert bytes(without_checksum(with_checksum(data), "it")) == data


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_changed_bit_or_length_is_noticed(data, draw):
    sealed = bytearray(with_checksum(data))
    if draw.draw(st.booleans()):
        sealed[draw.draw(st.integers(0, len(sealed) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    else:
        del sealed[draw.draw(st.integers(0, len(sealed) - 1)) :]
    with pytest.raises(StoreDamaged, match="it is damaged"):
        without_checksum(bytes(sealed), "it")


@pytest.mark.parametrize("data", [None, "text", 5, b"", b"1234"])
def test_what_was_never_sealed_is_damaged(data):
    with pytest.raises(StoreDamaged, match="damaged"):
        unpack(data)
    assert unpack(pack({"a": 1})) == {"a": 1}
