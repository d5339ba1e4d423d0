"""Strings are judged as Python's own UTF-8 decoder judges them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.decode.mqtt_text import any_of, bad_text, wildcards

WIDTH = 48
NASTY = st.sampled_from(
    [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xc3",
     "é".encode(), "温".encode(), "😀".encode(), b"\x80", b"\0", b"a", b"+", b"#", b"/"]
)  # fmt: skip
TEXT = st.lists(NASTY, max_size=10).map(b"".join)


def rows_of(text):
    row = np.full((1, WIDTH), 0xFF, np.uint8)
    row[0, 2 : 2 + len(text)] = np.frombuffer(text, np.uint8)
    return row, np.array([2]), np.array([2 + len(text)])


def is_bad(text):
    try:
        return "\0" in text.decode()
    except UnicodeDecodeError:
        return True


@settings(max_examples=400, deadline=None)
@given(TEXT)
def test_a_string_is_judged_as_python_does(text):
    row, begin, end = rows_of(text)
    wild = b"+" in text or b"#" in text
    assert bad_text(row, begin, end, np.array([True]))[0] == is_bad(text)
    assert wildcards(row, begin, end)[0][0] == wild
    assert any_of(row, end)[0] or not (is_bad(text) or wild)


def test_a_string_that_goes_on_may_end_inside_a_letter():
    row, begin, end = rows_of("温".encode()[:2])
    assert not bad_text(row, begin, end, np.array([False]))[0]
    assert bad_text(row, begin, end, np.array([True]))[0]
