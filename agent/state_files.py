"""Small files of the state folder: written whole or not at all, and set aside where they cannot be read.

It never leaves half a file behind, and keeps what it could not read (the last `MAX_SET_ASIDE` of a file: a disk that
spoils every one of them must not fill, too). A file belongs to whom the folder belongs to, so that the service can
read what root writes by command.

In: a path, bytes. Raises: `OSError` as it comes; who calls knows what the file was for. Remembers: nothing.
Source: rename(2): a name points to the old file or to the new one, never to a part.
"""

import contextlib
import os
from pathlib import Path

MODE = 0o600
MAX_SET_ASIDE = 5
"""Files set aside of one name; then the oldest makes room."""


def write_whole(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`; after power loss it holds the old bytes or the new."""
    beside = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read to `NAME.corrupt-N`; where it went."""
    names = [path.with_name(f"{path.name}.corrupt-{n}") for n in range(1, MAX_SET_ASIDE + 1)]
    free = next((name for name in names if not name.exists()), None)
    return path.replace(free or min(names, key=lambda name: name.stat().st_mtime_ns))
