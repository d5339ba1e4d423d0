"""Bytes at per-row offsets of one buffer, one copy a row, and big-endian readers over such rows.

It never reads outside the buffer, and never judges what it reads: bytes after a frame's captured
length belong to another frame, so a caller masks each field by the captured length.

In: `buffer` (size,) uint8, C-contiguous, may be read-only; `offset` (n,) int64, at least 0, in any order.
Out: (n, width) uint8 rows, the caller's own to change. Bytes at and past the buffer's end read as 0.
Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.records import I64, U8, U16, U32, U64


def gather(buffer: U8, offset: NDArray[np.integer], width: int) -> U8:
    """Row i is `buffer[offset[i] : offset[i] + width]`, zero-filled past the end; (n, width)."""
    n = len(offset)
    last = len(buffer) - width  # the last offset at which a whole row fits; may be below 0
    if n == 0:
        return np.empty((0, width), np.uint8)
    if int(offset.max()) <= last:
        return _windows(buffer, offset, width)
    rows = np.zeros((n, width), np.uint8)
    inside = offset <= last
    if last >= 0:
        rows[inside] = _windows(buffer, offset[inside], width)
    # The few rows at the end come from a copy of the last bytes with zeros after them.
    start = max(last, 0)
    tail = np.zeros(len(buffer) - start + width, np.uint8)
    tail[: len(buffer) - start] = buffer[start:]
    at = np.minimum(offset[~inside] - start, len(buffer) - start)
    rows[~inside] = _windows(tail, at, width)
    return rows


def _windows(buffer: U8, offset: NDArray[np.integer], width: int) -> U8:
    """Rows from the view of every `width` bytes as one item; [] and not `take`, which copies all of it."""
    every: NDArray[np.void] = np.ndarray(
        (len(buffer) - width + 1,), np.dtype((np.void, width)), buffer=buffer.data, strides=(1,)
    )
    rows: U8 = every[offset].view(np.uint8).reshape(-1, width)
    return rows


def shift(rows: U8, row: I64, start: NDArray[np.integer], width: int) -> U8:
    """`width` bytes from column `start[i]` of `rows[row[i]]`, zero-filled past that row's end; (m, width).

    `rows` is C-contiguous; a start past the row's end gives zeros.
    """
    row_width = rows.shape[1]
    begin = np.minimum(start, row_width)
    at = row * row_width
    at += begin
    out = gather(rows.reshape(-1), at, width)
    over = begin + width - row_width
    if int(over.max(initial=0)) > 0:
        out[np.arange(width) >= (width - over)[:, None]] = 0
    return out


def put(columns: Sequence[NDArray[Any]], row: I64, parts: Sequence[NDArray[Any]]) -> None:
    """Overwrite rows of each column with the values read for them elsewhere, in place."""
    for column, values in zip(columns, parts, strict=True):
        column[row] = values


def u16(rows: U8, col: int) -> U16:
    """Big-endian 16 bits at byte `col` of each row; (n,) native."""
    return rows[:, col : col + 2].view(">u2")[:, 0].astype(np.uint16)


def u32(rows: U8, col: int) -> U32:
    """Big-endian 32 bits at byte `col` of each row; (n,) native."""
    return rows[:, col : col + 4].view(">u4")[:, 0].astype(np.uint32)


def u64(rows: U8, col: int) -> U64:
    """Big-endian 64 bits at byte `col` of each row; (n,) native."""
    return rows[:, col : col + 8].view(">u8")[:, 0].astype(np.uint64)


def u48(rows: U8, col: int) -> U64:
    """Big-endian 48 bits (a MAC address) at byte `col` of each row, which has 8 bytes from there; (n,) native."""
    value = u64(rows, col)
    value >>= np.uint64(16)
    return value
