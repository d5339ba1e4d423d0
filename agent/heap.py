"""Keeps freed memory in the process: batches free and take the same few megabytes over and over.

By default glibc hands what a batch freed back to the kernel and faults it in again, page by page, with the next one.
What is kept is at most what was in use at once. Where the C library has no such setting, nothing changes.

In, out: nothing. Raises: nothing. Remembers: a setting of this process, made once by the command line.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

KEEP_BYTES = 64 << 20
"""Free memory above which some is handed back: well above what decoding and windows take for one batch."""
MAPPED_BYTES = 32 << 20
"""Size from which a block is mapped by itself: the most that glibc allows."""


def keep_heap() -> None:
    """Reuse freed memory instead of returning it to the kernel."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
