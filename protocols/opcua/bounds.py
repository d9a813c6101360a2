"""What asyncua's decoder does not hold against a hostile server: lengths. Importing this puts it right.

An array of Null has elements of no bytes, so that five bytes could ask for two thousand million of them; and
a negative length made a buffer go backwards, so that one element could be read again and again.
"""

from typing import Any

from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua import VariantType, ua_binary

_unpack_array = ua_binary.unpack_uatype_array


def _read(self: Buffer, size: int) -> bytes:
    if not 0 <= size <= self._size:
        raise NotEnoughData(f"a length of {size} where {self._size} bytes are left")
    start = self._cur_pos
    self._size -= size
    self._cur_pos = end = start + size
    return self._data[start:end]


def _skip(self: Buffer, size: int) -> None:
    _read(self, size)


def _array(vtype: VariantType, data: Any) -> list[Any] | None:
    if vtype is not VariantType.Null:
        return _unpack_array(vtype, data)
    length = ua_binary.Primitives.Int32.unpack(data)
    if length > 0:
        raise NotEnoughData(f"an array of {length} elements that have no bytes")
    return None if length < 0 else []


Buffer.read = _read  # type: ignore[method-assign]  # there is no other way in
Buffer.skip = _skip  # type: ignore[method-assign]  # there is no other way in
ua_binary.unpack_uatype_array = _array
