"""What our own attack tools share: an even rate. Sleeps; sends nothing."""

import time
from collections.abc import Iterator


def pace(rate: float, count: int) -> Iterator[int]:
    """0, 1, ... `count` - 1 at `rate` a second; catches up after a late wake-up."""
    start = time.monotonic()
    for i in range(count):
        late = start + i / rate - time.monotonic()
        if late > 0.001:
            time.sleep(late)
        yield i
