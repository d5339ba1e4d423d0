"""`gather` and `shift`: what stands at the offsets, zeros past the end, and never a read outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decode.gather import gather, shift, u16, u32, u48, u64


def plain(buffer: bytes, at: int, width: int) -> bytes:
    return buffer[at : at + width].ljust(width, b"\0")


@given(st.data(), st.binary(max_size=80), st.integers(1, 100))
def test_rows_are_what_stands_there_zero_filled_past_the_end(data, content, width):
    offsets = data.draw(st.lists(st.integers(0, len(content)), max_size=9))
    rows = gather(np.frombuffer(content, np.uint8), np.array(offsets, np.int64), width)
    assert rows.shape == (len(offsets), width)
    assert [r.tobytes() for r in rows] == [plain(content, o, width) for o in offsets]


@given(st.data(), st.integers(1, 40))
def test_shift_stays_inside_its_row(data, width):
    rows = np.arange(1, 101, dtype=np.uint8).reshape(5, 20)
    picks = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=8))
    row = np.array([r for r, _ in picks], np.int64)
    start = np.array([s for _, s in picks], np.int32)
    got = [r.tobytes() for r in shift(rows, row, start, width)]
    assert got == [plain(rows[r].tobytes(), s, width) for r, s in picks]


@pytest.mark.parametrize(
    ("read", "size"), [(u16, 2), (u32, 4), (u48, 6), (u64, 8)], ids=["u16", "u32", "u48", "u64"]
)
def test_readers_are_big_endian_at_any_column(read, size):
    rows = np.random.default_rng(1).integers(0, 256, (50, 20), dtype=np.uint8)
    for col in range(20 - 8 + 1):
        want = [int.from_bytes(r.tobytes()[col : col + size], "big") for r in rows]
        assert read(rows, col).tolist() == want


def test_the_rows_are_the_callers_own():
    buffer = np.zeros(10, np.uint8)
    buffer.flags.writeable = False
    gather(buffer, np.array([0, 5], np.int64), 4)[:] = 7
    assert not buffer.any()
