"""Strings inside rows of bytes: wildcards, U+0000 and what is not UTF-8, many at once.

In: `rows` (n, width) uint8, C-contiguous, and the columns [begin, end) of each row's string.
Out: (n,) bool. Never keeps or returns a byte. Raises: nothing. Remembers: nothing.

Source: MQTT 5.0 1.5.4 (UTF-8, no U+0000, no surrogates), 4.7.1 (wildcards); RFC 3629 4 (well-formed UTF-8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I64, U8, BoolArray


def any_of(rows: U8, end: I64) -> BoolArray:
    """Whether columns [2, end) hold `#`, `+`, U+0000 or a byte above 0x7F: a quick look that most strings pass."""
    suspect = rows - np.uint8(1) >= 0x7F
    suspect |= rows & np.uint8(0xF7) == 0x23  # '#' is 0x23, '+' is 0x2B
    width = rows.shape[1]
    column = np.arange(width)
    inside = (column >= 2) & (column < np.arange(width + 1)[:, None])
    suspect &= inside.take(np.minimum(end, width), axis=0)
    words = suspect.view(np.uint64)
    any_word = words[:, 0].copy()
    for k in range(1, words.shape[1]):
        any_word |= words[:, k]  # a reduction along so short an axis takes four times as long
    found: BoolArray = any_word != 0
    return found


def wildcards(rows: U8, begin: I64, end: I64) -> tuple[BoolArray, BoolArray]:
    """Whether the strings hold a wildcard; and the columns that are inside the strings, (n, width)."""
    column = np.arange(rows.shape[1])
    inside = (column >= begin[:, None]) & (column < end[:, None])
    return ((rows & np.uint8(0xF7) == 0x23) & inside).any(axis=1), inside


def bad_text(rows: U8, begin: I64, end: I64, whole: BoolArray) -> BoolArray:
    """Whether the strings hold U+0000 or bytes that are not UTF-8; where not `whole`, more follows after `end`."""
    column = np.arange(rows.shape[1])
    inside = (column >= begin[:, None]) & (column < end[:, None])
    bad: BoolArray = ((rows == 0) & inside).any(axis=1)
    wide = np.flatnonzero(((rows >= 0x80) & inside).any(axis=1))
    if len(wide):
        bad[wide] |= _not_utf8(rows[wide], inside[wide], whole[wide])
    return bad


def _shifted(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    out = np.zeros_like(mask)
    out[:, by:] = mask[:, :-by]
    return out


def _not_utf8(rows: U8, inside: NDArray[np.bool_], whole: BoolArray) -> BoolArray:
    """Lead bytes ask for continuation bytes; what is asked for and what is there must be the same columns."""
    text = np.where(inside, rows, np.uint8(0x20))
    follow = (text & 0xC0) == 0x80
    two, three, four = text >= 0xC2, text >= 0xE0, text >= 0xF0
    bad = (text == 0xC0) | (text == 0xC1) | (text > 0xF4)
    due = _shifted(two, 1) | _shifted(three, 2) | _shifted(four, 3)
    # At the end of a string that goes on, what is due beyond it may still come.
    bad |= follow & ~due
    bad |= due & ~follow & (inside | whole[:, None])
    # Over-long forms, surrogates and what lies above U+10FFFF show in the second byte.
    for lead, low, high in (
        (0xE0, 0xA0, 0xBF),
        (0xED, 0x80, 0x9F),
        (0xF0, 0x90, 0xBF),
        (0xF4, 0x80, 0x8F),
    ):
        second = _shifted(text == lead, 1)
        bad |= second & follow & ((text < low) | (text > high))
    # A lead byte in the last column has its continuation nowhere.
    bad[:, -1] |= whole & two[:, -1]
    found: BoolArray = bad.any(axis=1)
    return found
