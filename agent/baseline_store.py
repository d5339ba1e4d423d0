"""Where the baselines of a gateway live: `state_dir/baseline`, one file a source; and how people change them.

While the service runs it holds the folder's lock, saves every `SAVE_S` and at its end, and takes up requests: small
files that `wardwatch baseline` puts there and the service removes. While it does not run, the command works on the
files itself. A file that cannot be used is set aside and said (`problems`); learning begins anew.

In: `Kept` (a source's name, its detector, the lock under which it works). Raises: `BaselineError` from what a command
calls; what the service calls reports in `problems`. Remembers: when it saved last.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from agent.config import parse_address
from agent.errors import BaselineError, BaselineReason
from agent.score.baseline import BaselineDetector
from agent.score.baseline_state import put_in_place, restore, snapshot
from agent.score.baseline_status import summary
from agent.state_files import set_aside

FOLDER = "baseline"
SAVE_S = 600.0
"""What a power cut can cost of learning; a few hundred kilobytes are written each time."""
TAKEN_WITHIN_S = 10.0
LOCK_WAIT_S = 2.0
MAX_REQUEST_BYTES = 4096

log = logging.getLogger("wardwatch")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What somebody wants of a baseline."""

    action: Literal["learn", "freeze", "reset"]
    source: str | None = None
    """None: every source."""
    device: str | None = None
    """An address; None: the whole baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One source's baseline in a running service."""

    name: str
    detector: BaselineDetector
    lock: AbstractContextManager[object]


class BaselineStore:
    """The running service's hold on the folder."""

    def __init__(self, state_dir: Path, kept: Sequence[Kept]) -> None:
        self.folder = state_dir / FOLDER
        self.problems: dict[str, str] = {}
        """By source: what went wrong with its file last."""
        self._kept = tuple(kept)
        self._saved_s = time.monotonic()
        self._lock: AbstractContextManager[bool] | None = None
        self._holds = False

    def open(self) -> None:
        """Take the folder, and fill the detectors from their files."""
        if not self._kept:
            return
        try:
            self._lock = locked(self.folder)
            self._holds = self._lock.__enter__()
        except BaselineError as error:
            self._lock = None
            self._note_all(str(error))
            return
        if not self._holds:
            self._note_all(f"{self.folder}: another wardwatch holds it; nothing is kept")
            return
        for kept in self._kept:
            self._load(kept)

    def tick(self) -> None:
        """Take up requests, save when it is time. Called every second or so, never in a source's thread."""
        if not self._holds:
            return
        changed = False
        for path in sorted(self.folder.glob("request-*.json")):
            changed |= self._take(path)
        if changed or time.monotonic() - self._saved_s >= SAVE_S:
            self.save()

    def save(self) -> None:
        """Write every baseline."""
        self._saved_s = time.monotonic()
        for kept in self._kept if self._holds else ():
            with kept.lock:
                copy = snapshot(kept.detector)
            try:
                copy.write(file_of(self.folder, kept.name))
                self.problems.pop(kept.name, None)
            except BaselineError as error:
                self._note(kept.name, str(error))

    def health(self) -> list[dict[str, Any]]:
        """A row a source. Any thread."""
        rows = []
        for kept in self._kept:
            with kept.lock:
                row = summary(kept.detector)
            rows.append({"source": kept.name, "problem": self.problems.get(kept.name), **row})
        return rows

    def close(self) -> None:
        """Save and let the folder go."""
        self.save()
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock, self._holds = None, False

    def _load(self, kept: Kept) -> None:
        path = file_of(self.folder, kept.name)
        try:
            with kept.lock:
                restore(path, kept.detector)
        except BaselineError as error:
            if error.reason is not BaselineReason.NOT_FOUND:
                try:
                    aside = f"set aside as {set_aside(path).name}"
                except OSError:
                    aside = "it stays where it is"
                self._note(kept.name, f"{error}; {aside}, learning begins anew")

    def _take(self, path: Path) -> bool:
        try:
            request = read_request(path)
        except BaselineError as error:
            log.warning("%s", error)
            request = None
        with suppress(OSError):
            path.unlink()
        if request is None:
            return False
        for kept in self._kept:
            if request.source in {None, kept.name}:
                with kept.lock:
                    known = apply(kept.detector, request)
                said = "done" if known else "that device is not known there"
                log.info("baseline of %s: %s: %s", kept.name, request.action, said)
        return True

    def _note_all(self, problem: str) -> None:
        for kept in self._kept:
            self._note(kept.name, problem)

    def _note(self, name: str, problem: str) -> None:
        if self.problems.get(name) != problem:
            log.error("baseline of %s: %s", name, problem)
        self.problems[name] = problem


def apply(detector: BaselineDetector, request: Request) -> bool:
    """Do what is asked. False: the device is not known. The address has been checked."""
    device = parse_address(request.device) if request.device else None
    if request.action == "freeze":
        detector.frozen = True
        return True
    if request.action == "learn":
        if device is None:
            detector.frozen = False
            return True
        return detector.accept(device)
    if device is None:
        detector.reset()
        detector.frozen = False
        return True
    return detector.forget(device)


def file_of(folder: Path, source: str) -> Path:
    """Where the baseline of a source stands."""
    return folder / f"{source}.npz"


def sources_in(folder: Path) -> list[str]:
    """Sources that have a file."""
    return sorted(path.stem for path in folder.glob("*.npz"))


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether the folder is ours now; it is let go at the end, however that comes. Raises `BaselineError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        problem = f"{folder}: cannot be used: {error.strerror}"
        raise BaselineError(BaselineReason.UNWRITABLE, problem) from error
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """A command holds it for a moment only; a service for as long as it runs."""
    until_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                return False
            time.sleep(0.1)
        else:
            return True


def ask(folder: Path, request: Request) -> bool:
    """Leave a request for the running service; whether it was taken up in time. Raises `BaselineError`."""
    path = folder / f"request-{time.time_ns():020d}-{os.getpid()}.json"
    put_in_place(path, msgspec.json.encode(request))
    until_s = time.monotonic() + TAKEN_WITHIN_S
    while path.exists():
        if time.monotonic() >= until_s:
            with suppress(OSError):
                path.unlink()
            return False
        time.sleep(0.1)
    return True


def read_request(path: Path) -> Request:
    """A request, checked. Raises `BaselineError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_REQUEST_BYTES)
        request = msgspec.json.decode(content, type=Request)
    except (OSError, msgspec.DecodeError) as error:
        raise BaselineError(BaselineReason.MALFORMED, f"{path}: no request: {error}") from error
    if request.device is not None and parse_address(request.device) is None:
        raise BaselineError(BaselineReason.MALFORMED, f'{path}: "{request.device}" is no address')
    return request
