"""A zarr array that grows along its last axis, keeping one unfinished chunk in memory; lengths are in rows or cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.blosc import BITSHUFFLE, Blosc

from .documents import BLOSC, array_document
from .overview import Pyramid
from .schema import CELL_CHUNK, LEVELS, STATISTICS

__all__ = ["GrowingArray", "SeriesArrays", "rounded"]

# The unfinished chunk is written again at each commit: level 1 takes a third of the time for 2 % more bytes.
_FULL = Blosc(cname=BLOSC["cname"], clevel=BLOSC["clevel"], shuffle=BITSHUFFLE, blocksize=0)
_UNFINISHED = Blosc(cname=BLOSC["cname"], clevel=1, shuffle=BITSHUFFLE, blocksize=0)


class GrowingArray:
    """The array `path`, of shape `(*lead, length)`, cut into chunks along its last one or two axes.

    Only the last chunk of the long axis is held; full chunks leave encoded through `pending()`. Values that were
    committed never change: a chunk that is written again holds the same values and more rows behind them.
    """

    def __init__(self, path: str, lead: tuple[int, ...], chunks: tuple[int, ...], dtype: str, dims: Sequence[str]):
        assert len(chunks) == len(lead) + 1 == len(dims)
        self.path = path
        self.lead = lead
        self.chunks = chunks
        self.dtype = dtype
        self.dims = tuple(dims)
        self.attributes: Mapping[str, Any] = {}
        self.length = 0
        self.checksum = True  # not of an array that was begun in format version 1
        self._full: dict[str, bytes] = {}
        self._tail = self._blank()
        self._dirty = False

    def _blank(self) -> np.ndarray:
        # Padded to whole chunks, so that encoding is a slice; the padding is what a reader sees as fill.
        padded = tuple(max(1, -(-n // c)) * c for n, c in zip(self.lead, self.chunks[:-1], strict=True))
        kind = np.dtype(self.dtype)
        return np.full((*padded, self.chunks[-1]), np.nan if kind.kind == "f" else 0, kind)

    def widen(self, lead: tuple[int, ...]) -> None:
        """Grow the leading axes; what was there before reads as NaN in the new part."""
        self.lead = lead
        old, self._tail = self._tail, self._blank()
        self._tail[tuple(slice(n) for n in old.shape)] = old

    def restore(self, length: int, tail: np.ndarray) -> None:
        """Continue at `length`, where `tail` holds the values of the unfinished last chunk."""
        assert tail.shape[-1] == length % self.chunks[-1]
        self.length = length
        self._tail[(*map(slice, self.lead), slice(tail.shape[-1]))] = tail

    def append(self, block: np.ndarray) -> None:
        """Append `block: [*lead, n]`; nothing is written yet."""
        assert block.shape[:-1] == self.lead, (self.path, block.shape, self.lead)
        done, size = 0, self.chunks[-1]
        rows = tuple(map(slice, self.lead))
        while done < block.shape[-1]:
            at = self.length % size
            n = min(size - at, block.shape[-1] - done)
            self._tail[(*rows, slice(at, at + n))] = block[..., done : done + n]
            self.length += n
            done += n
            self._dirty = True
            if at + n == size:
                self._full.update(self._encode(self.length // size - 1, _FULL))
                self._tail = self._blank()
                self._dirty = False

    def _encode(self, number: int, codec: Blosc) -> Iterator[tuple[str, bytes]]:
        """Yield chunk `number` along the last axis: one piece for each chunk of the axis before it."""
        if not self.lead:
            yield f"{self.path}/c/{number}", self._checked(codec.encode(self._tail))
            return
        height = self.chunks[-2]
        for piece in range(self._tail.shape[-2] // height):
            part = self._tail[..., piece * height : (piece + 1) * height, :]
            key = "/".join(["c", *("0" for _ in self.lead[:-1]), str(piece), str(number)])
            yield f"{self.path}/{key}", self._checked(codec.encode(np.ascontiguousarray(part)))

    def _checked(self, data: bytes) -> bytes:
        return data + crc32c(data).to_bytes(4, "little") if self.checksum else data

    def pending(self) -> Iterator[tuple[str, bytes]]:
        """Yield the key and the bytes of every chunk that must be written before `length` may be committed."""
        yield from self._full.items()
        if self._dirty:
            yield from self._encode(self.length // self.chunks[-1], _UNFINISHED)

    def settled(self) -> None:
        """Forget what `pending()` yielded: it is on the disk."""
        self._full.clear()
        self._dirty = False

    def first_key(self) -> str:
        """The key of the first chunk, whose folder must exist."""
        return "/".join([self.path, "c", *("0" for _ in self.chunks)])

    def document(self) -> dict[str, Any]:
        """Return the array's metadata document at its present length."""
        shape = (*self.lead, self.length)
        return array_document(shape, self.chunks, self.dtype, self.dims, self.attributes, checksum=self.checksum)


class SeriesArrays:
    """One table of values, `name[row, step]`, with its pyramid `overview/16/name[stat, row, step_16]` and so on.

    With `bits` the values, and the pyramid's means, are rounded to so many bits of the mantissa.
    """

    def __init__(
        self, name: str, height: int, chunks: tuple[int, ...], dtype: str, axis: str, bits: int | None = None
    ) -> None:
        self._bits = bits
        self.values = GrowingArray(name, (height,), chunks, dtype, (axis, "step"))
        lead, cell = (len(STATISTICS), height), (len(STATISTICS), chunks[0], CELL_CHUNK)
        self.cells = {
            level: GrowingArray(f"overview/{level}/{name}", lead, cell, dtype, ("stat", axis, f"step_{level}"))
            for level in LEVELS
        }
        self.pyramid = Pyramid(height, dtype)

    @property
    def arrays(self) -> list[GrowingArray]:
        """The values and the three levels of their pyramid."""
        return [self.values, *self.cells.values()]

    def widen(self, height: int) -> None:
        """Take more rows from now on; they are NaN before."""
        self.values.widen((height,))
        for array in self.cells.values():
            array.widen((len(STATISTICS), height))
        self.pyramid.widen(height)

    def append(self, values: np.ndarray) -> None:
        """Append `values: [height, n]`, and to the pyramid the cells that became whole."""
        if self._bits is not None:
            values = rounded(values, self._bits)
        self.values.append(values)
        for level, cells in self.pyramid.push(values).items():
            if self._bits is not None:
                cells[2] = rounded(cells[2], self._bits)
            self.cells[level].append(cells)


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Round to the nearest number with `bits` bits of mantissa: a relative error of at most 2 ** -(bits + 1).

    NaN and Inf stay, nothing becomes Inf, and what is too small to have a full mantissa keeps an absolute error of that
    size. The zeros at the end are what the codec saves.

    >>> rounded(np.array([1.0, 1 + 2**-12, np.nan, np.inf], np.float32), 11).tolist()
    [1.0, 1.0, nan, inf]
    """
    whole, mantissa = (np.uint32, 23) if values.dtype == np.float32 else (np.uint64, 52)
    cut = mantissa - bits
    if cut <= 0:
        return values
    raw = np.ascontiguousarray(values).view(whole)
    half = (raw >> whole(cut) & whole(1)) + whole((1 << (cut - 1)) - 1)  # to even, in a tie
    mask = whole((1 << mantissa + (9 if mantissa == 23 else 12)) - 1 ^ ((1 << cut) - 1))
    near = ((raw + half) & mask).view(values.dtype)
    toward_zero = (raw & mask).view(values.dtype)
    return np.where(np.isfinite(near), near, np.where(np.isfinite(values), toward_zero, values))
