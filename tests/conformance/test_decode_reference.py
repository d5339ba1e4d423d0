"""Every frame decodes the same in a batch, alone, and by the slow reference; whole, cut and corrupted."""

import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.decode.decoder import PacketDecoder
from agent.records import FrameBatch, LinkType, Reason
from tests.support.frames import ETHERNET_FRAMES, FRAMES, batch_of
from tests.support.reference_decoder import decode_frame
from tests.support.table_rows import NoStreams, assert_dtypes, row_of, rows_of

BY_LINK = {
    kind: [frame for _, k, frame in FRAMES if k == kind] for kind in {k for _, k, _ in FRAMES}
}
ETHERNET = list(ETHERNET_FRAMES.values())


def decoded(batch: FrameBatch) -> list[dict[str, object]]:
    table = PacketDecoder(streams=NoStreams()).decode(batch)
    assert_dtypes(table)
    return rows_of(table, batch.offset)


def expected(frames, link_type=LinkType.ETHERNET, wirelen=None, vlan_tci=None):
    wirelen = [len(f) for f in frames] if wirelen is None else wirelen
    vlan_tci = [-1] * len(frames) if vlan_tci is None else vlan_tci
    return [
        row_of(decode_frame(f, w, link_type, t))
        for f, w, t in zip(frames, wirelen, vlan_tci, strict=True)
    ]


def assert_equal(got, want, names=None):
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        wrong = {k: (g[k], w[k]) for k in w if g[k] != w[k]}
        assert not wrong, (names[i] if names else i, wrong)


@pytest.mark.parametrize(("name", "link_type", "frame"), FRAMES, ids=[f[0] for f in FRAMES])
def test_a_frame_alone(name, link_type, frame):
    assert_equal(decoded(batch_of([frame], link_type)), expected([frame], link_type), [name])


@pytest.mark.parametrize("link_type", sorted(BY_LINK))
def test_all_frames_of_a_link_type_in_one_batch(link_type):
    frames = BY_LINK[link_type]
    assert_equal(decoded(batch_of(frames, link_type)), expected(frames, link_type))


@pytest.mark.parametrize(("name", "link_type", "frame"), FRAMES, ids=[f[0] for f in FRAMES])
def test_a_frame_cut_at_every_byte(name, link_type, frame):
    """In one batch, with other bytes after each cut, so that a field read past it would show."""
    cuts = [frame[:size] for size in range(min(len(frame), 400) + 1)]
    wirelen = [len(frame)] * len(cuts)
    batch = batch_of(cuts, link_type, wirelen=wirelen, gap=b"\x5a" * 70)
    assert_equal(decoded(batch), expected(cuts, link_type, wirelen), [f"{name}"] * len(cuts))


@pytest.mark.parametrize(("name", "link_type", "frame"), FRAMES, ids=[f[0] for f in FRAMES])
def test_a_frame_that_was_short_on_the_wire(name, link_type, frame):
    """Here the wire length ends with the captured one: the header's lengths promise too much."""
    cuts = [frame[:size] for size in range(min(len(frame), 200) + 1)]
    assert_equal(decoded(batch_of(cuts, link_type)), expected(cuts, link_type), [name] * len(cuts))


@pytest.mark.parametrize("reason", [r for r in Reason if r != Reason.OK])
def test_every_reason_occurs(reason):
    whole = {row["reason"] for _, kind, f in FRAMES for row in expected([f], kind)}
    cut = {
        row["reason"]
        for f in ETHERNET
        for n in range(60)
        for row in expected([f[:n]], wirelen=[99])
    }
    assert reason in whole | cut


def mutated() -> st.SearchStrategy[bytes]:
    """A known frame with bytes of its headers overwritten, and perhaps cut."""

    @st.composite
    def draw_frame(draw):
        frame = bytearray(draw(st.sampled_from(ETHERNET)))
        for _ in range(draw(st.integers(0, 5))):
            at = draw(st.integers(12, min(len(frame), 130) - 1))
            frame[at] = draw(st.integers(0, 255))
        return (
            bytes(frame[: draw(st.integers(0, len(frame)))])
            if draw(st.booleans())
            else bytes(frame)
        )

    return draw_frame()


@settings(max_examples=300, deadline=None)
@given(st.data(), st.lists(mutated(), max_size=12))
def test_mutated_frames(data, frames):
    """Offsets in any order, wire lengths beyond the captured ones, tags taken out by the kernel."""
    n = len(frames)
    extra = data.draw(st.lists(st.sampled_from([0, 0, 1, 17, 3000]), min_size=n, max_size=n))
    tags = data.draw(st.lists(st.sampled_from([-1, -1, 0, 7, 0xEFFF]), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    wirelen = [len(f) + e for f, e in zip(frames, extra, strict=True)]
    batch = batch_of(frames, wirelen=wirelen, order=order, gap=b"\xff" * 3, vlan_tci=tags)
    want = expected(frames, wirelen=wirelen, vlan_tci=tags)
    assert_equal(decoded(batch), want)
    for frame, w, tag, row in zip(frames, wirelen, tags, want, strict=True):
        assert_equal(decoded(batch_of([frame], wirelen=[w], vlan_tci=[tag])), [row])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(BY_LINK)), st.lists(st.binary(max_size=90), max_size=8))
def test_noise_on_every_link_type(link_type, frames):
    assert_equal(decoded(batch_of(frames, link_type)), expected(frames, link_type))


def test_corrupted_frames_in_a_large_batch():
    """4,000 frames with random bytes overwritten, at once."""
    rng = np.random.default_rng(5)
    frames = []
    for _ in range(4000):
        frame = bytearray(ETHERNET[rng.integers(len(ETHERNET))])
        for at in rng.integers(12, min(len(frame), 120), rng.integers(0, 4)):
            frame[at] = rng.integers(256)
        frames.append(bytes(frame[: rng.integers(len(frame) + 1)] if rng.random() < 0.3 else frame))
    wirelen = [len(f) + int(rng.choice([0, 0, 100])) for f in frames]
    order = rng.permutation(len(frames)).tolist()
    batch = batch_of(frames, wirelen=wirelen, order=order)
    assert_equal(decoded(batch), expected(frames, wirelen=wirelen))


@pytest.mark.parametrize("link_type", sorted(BY_LINK))
def test_nothing_is_read_past_the_buffer(link_type):
    """The last frame ends where an unreadable page begins: an over-read would end the process."""
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
    size = 4 * page
    area = mmap.mmap(-1, size + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    protect = [ctypes.c_void_p(start + size), ctypes.c_size_t(page)]
    assert libc.mprotect(*protect, mmap.PROT_NONE if hasattr(mmap, "PROT_NONE") else 0) == 0
    try:
        readable = np.frombuffer(area, np.uint8)[:size]
        for frame in BY_LINK[link_type]:
            for cut in {frame, frame[:-1], frame[:20], frame[:54], frame[:1], b""}:
                at = size - len(cut)
                area[at:size] = cut
                batch = FrameBatch(
                    ts_ns=np.zeros(1, np.int64),
                    offset=np.array([at]),
                    caplen=np.array([len(cut)], np.int32),
                    wirelen=np.array([len(frame)], np.int32),
                    buffer=readable,
                    link_type=link_type,
                )
                assert_equal(decoded(batch), expected([cut], link_type, [len(frame)]))
                alone = FrameBatch(
                    **{
                        **{
                            f: getattr(batch, f)
                            for f in ("ts_ns", "caplen", "wirelen", "link_type")
                        },
                        "buffer": readable[at:],
                        "offset": np.zeros(1, np.int64),
                    }
                )
                assert_equal(decoded(alone), expected([cut], link_type, [len(frame)]))
    finally:
        assert libc.mprotect(*protect, mmap.PROT_READ | mmap.PROT_WRITE) == 0
