"""Protocol buffers as they lie in a file: numbered fields of varints, fixed words and byte strings (sizes in bytes).

After the public encoding guide, https://protobuf.dev/programming-guides/encoding/. No schema and no generated code:
the two formats that need it use a handful of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["double", "fields", "fixed32", "integer", "message", "signed"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the raw value of each field; ValueError if the bytes are no message.

    >>> list(fields(integer(2, 300) + message(5, b"ab")))
    [(2, 300), (5, b'ab')]
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        else:
            size = 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else end + 1
        if at + size > end:
            raise ValueError(f"field {key >> 3} of wire type {kind} does not fit into {end} bytes")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"the number at byte {at} has no end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def signed(value: int) -> int:
    """Read an unsigned 64-bit number as a signed one.

    >>> signed(2**64 - 1)
    -1
    """
    return value - (1 << 64) if value >= 1 << 63 else value


def integer(number: int, value: int) -> bytes:
    """Encode an integer field.

    >>> integer(1, -1)[0], len(integer(1, -1))
    (8, 11)
    """
    return _encoded(number << 3) + _encoded(value % (1 << 64))


def message(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, of text, or of another message.

    >>> message(1, b"loss")
    b'\\n\\x04loss'
    """
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def double(number: int, value: float) -> bytes:
    """Encode a field of eight bytes.

    >>> len(double(1, 0.5))
    9
    """
    return _encoded(number << 3 | _FIXED64) + struct.pack("<d", value)


def fixed32(number: int, value: float) -> bytes:
    """Encode a field of four bytes, a float32.

    >>> len(fixed32(2, 0.5))
    5
    """
    return _encoded(number << 3 | _FIXED32) + struct.pack("<f", value)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
