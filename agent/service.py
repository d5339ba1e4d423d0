"""`wardwatch run`: the one place with threads. Captures, signals, spool, uplink, watchdog, a clean stop.

Threads: one a source (capture and pipeline), one that commits the spool, one that owns the broker
connection; the main thread waits for signals and feeds the watchdog. An error that nobody expected in
any of them stops the others and ends the process loudly.

It never sends on what it watches, and listens on no port. In: the settings. Out: findings to the spool
and, with no broker configured, to the terminal, too. Raises: `AgentError` at the start, or when a
source cannot go on.
"""

import contextlib
import hashlib
import logging
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from agent import __version__, health, vitals
from agent.alert.finding import Moment, stamp_transmit_time
from agent.alert.open_list import encode_open
from agent.alert.suppression import DeviceLookup
from agent.assembly import (
    Site,
    ensure_site_key,
    make_baseline,
    make_broker,
    make_message,
    make_site,
    make_watch,
    read_site_key,
)
from agent.baseline_store import BaselineStore, Kept
from agent.capture.packet_ring import LiveCapture, open_live
from agent.capture.packet_socket import bridge_of
from agent.config import Config, Source, load_config
from agent.errors import ConfigError, UplinkError
from agent.local_state import LocalState
from agent.notify import Supervisor
from agent.records import Alert
from agent.source_loop import SourceLoop
from agent.uplink.own_flows import OwnFlows
from agent.uplink.publisher import Publisher, Voice
from agent.uplink.spool import Spool

READ_WAIT_S = 0.05
"""How long a capture waits for a batch to fill; a part of the delay of an alert."""
TICK_S = 0.5
STALLED_S = 10.0
"""A source's thread that shows no sign of life for so long is not healthy: the watchdog hears nothing."""
JOIN_S = 20.0

OnAlert = Callable[[Alert, int, DeviceLookup], None]
"""An event, what to add to its event times to get wall time, and what the site says of an address."""

log = logging.getLogger("wardwatch")


def check(config_file: Path, *, no_model: bool = False) -> str:
    """Read the settings and every file that they name; one line that says so. Opens no device."""
    config = load_config(config_file)
    site = make_site(config, no_model=no_model, site_key=read_site_key(config) or b"to be made")
    if site.tuning is not None and site.tuning.problem:
        raise ConfigError("", site.tuning.problem)
    broker = "no broker"
    if config.uplink.url:
        broker = make_broker(config.uplink, config.site.gateway).name
    _require_sources(config)
    model = site.bundle.id if site.bundle else f"rules only ({site.bundle_problem})"
    return f"{config_file}: good: {len(config.source)} source(s), {broker}, {model}"


def serve(config_file: Path, *, no_model: bool = False, on_alert: OnAlert | None = None) -> None:
    """Run until SIGTERM or SIGINT. `on_alert`: shown the events where no broker is configured."""
    config = load_config(config_file)
    _require_sources(config)
    _make_state_dir(config.site.state_dir)
    site = make_site(config, no_model=no_model, site_key=_site_key(config), config_file=config_file)
    if site.bundle_problem:
        log.warning(
            "%s", site.bundle_problem if site.bundle else f"rules only: {site.bundle_problem}"
        )
    digest = hashlib.sha256(config_file.read_bytes()).hexdigest()[:16]
    service = Service(config, site, config_hash=digest, on_alert=on_alert)
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            service.read_again.set()
            return
        log.info("%s: stopping", signal.Signals(number).name)
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {s: signal.signal(s, on_signal) for s in signals}
    try:
        service.run(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Service:
    """All sources of one gateway, their spool and their uplink."""

    def __init__(
        self, config: Config, site: Site, *, config_hash: str, on_alert: OnAlert | None = None
    ) -> None:
        self._config = config
        self.local = LocalState(config, salt=secrets.randbits(63))
        self._site = site = self.local.join(site)
        self.read_again = threading.Event()
        """Set by SIGHUP: read the tuning tables of the settings, and the commands' file, again."""
        self._config_hash = config_hash
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._process = health.Process()
        self._health_sequence = 0
        self.flows = OwnFlows()
        self.spool = Spool(
            config.site.state_dir / "spool.db", max_bytes=config.uplink.spool_max_bytes
        )
        self.publisher: Publisher | None = None
        if config.uplink.url:
            client_id = f"wardwatch-{config.site.name}-{config.site.ward}-{config.site.gateway}"
            self.publisher = Publisher(
                make_broker(config.uplink, client_id),
                self.spool,
                flows=self.flows,
                voice=self._voice(),
                report=_report_uplink,
                stamp=stamp_transmit_time,
            )
        self._on_alert = on_alert if self.publisher is None else None
        ignore = _ports_to_listen_inward(config.source)
        self.loops = [self._loop(source, ignore=source.name in ignore) for source in config.source]
        self.local.watch(self.loops)
        self.baselines = BaselineStore(
            config.site.state_dir,
            [
                Kept(name=loop.source.name, detector=loop.watch.baseline, lock=loop.watch.lock)
                for loop in self.loops
                if loop.watch.baseline is not None
            ],
        )

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set, or a thread failed (its error is raised here)."""
        supervisor = Supervisor()
        stop_uplink, stop_spool = threading.Event(), threading.Event()
        if self.spool.set_aside:
            log.error(
                "spool was unreadable: set aside as %s, a new one begun", self.spool.set_aside
            )
        if self.spool.problem:
            log.error("%s", self.spool.problem)
        with (
            self._thread("spool", lambda: self.spool.run(stop_spool, _report_spool), stop_spool),
            self._uplink_thread(stop_uplink),
        ):
            self.baselines.open()
            threads = [self._started(loop.source.name, self._runner(loop)) for loop in self.loops]
            supervisor.say("READY=1", f"STATUS={len(threads)} source(s)")
            log.info("wardwatch %s: %d source(s)", __version__, len(threads))
            try:
                self._wait(stop, supervisor)
            finally:
                supervisor.say("STOPPING=1")
                self._stop.set()
                for thread in threads:
                    thread.join(JOIN_S)
                self._say_open()
                self.local.close()
                self.baselines.close()
                with contextlib.suppress(UplinkError):
                    self.spool.commit()
        self.spool.close()
        if self._failure is not None:
            raise self._failure

    def health(self) -> dict[str, Any]:
        """The health record of now. Any thread."""
        self._health_sequence += 1
        return health.record(
            sequence=self._health_sequence,
            process=self._process,
            agent={
                "version": __version__,
                "config_hash": self._config_hash,
                "bundle": self._site.context.bundle,
                "bundle_problem": self._site.bundle_problem,
            },
            sources=[loop.figures() for loop in self.loops],
            scoring=vitals.scoring(self.loops),
            spool=vitals.spool(self.spool),
            uplink=vitals.uplink(self.publisher),
            local={**self.local.health(), "baseline": self.baselines.health()},
        )

    def _loop(self, source: Source, *, ignore: bool) -> SourceLoop:
        def open_device() -> LiveCapture:
            return open_live(
                source.interface,
                placement=source.placement,
                ring_mib=source.ring_mib,
                max_wait_s=READ_WAIT_S,
                ignore_outgoing=True if ignore else None,
            )

        watch = make_watch(
            self._site,
            source.name,
            own_flows=self.flows,
            salt=secrets.randbits(63),
            wall_offset_ns=lambda: time.time_ns() - time.monotonic_ns(),
            baseline=make_baseline(self._site),
        )
        return SourceLoop(source, watch, open_device=open_device, deliver=self._deliver)

    def _deliver(self, loop: SourceLoop, alerts: list[Alert]) -> None:
        """Queue events for the broker, show or log them. Called in the sources' threads."""
        clock = health.clock_state()
        for alert in alerts:
            moment = Moment(
                wall_offset_ns=loop.wall_offset_ns,
                logged_ms=time.time_ns() // 1_000_000,
                clock_synced=clock["synced"],
                clock_source=clock["source"],
                boot_id=clock["boot_id"],
                monotonic_ms=clock["monotonic_ms"],
                n_dropped_frames=loop.drops_since(alert.start_ns),
            )
            self.spool.put(partial(make_message, alert, context=self._site.context, moment=moment))
            log.info("finding %s: %s %s %s", alert.uid, alert.activity, alert.severity, alert.kind)
            if self._on_alert is not None:
                self._on_alert(alert, loop.wall_offset_ns, self._site.book)
        self._say_open()

    def _say_open(self) -> None:
        """Hand the retained list of open findings to the uplink."""
        if self.publisher is None:
            return
        findings: list[Alert] = []
        for loop in self.loops:
            with loop.watch.lock:
                findings += loop.watch.policy.open_findings()
        now_ns = time.time_ns()
        offset_ns = now_ns - time.monotonic_ns()
        self.publisher.set_open(
            encode_open(findings, ts_ms=now_ns // 1_000_000, wall_offset_ns=offset_ns)
        )

    def _voice(self) -> Voice:
        return vitals.voice(
            self._site.context,
            config_hash=self._config_hash,
            health_record=lambda: health.to_bytes(self.health()),
        )

    def _wait(self, stop: threading.Event, supervisor: Supervisor) -> None:
        """Until asked to stop or a thread failed; the watchdog hears of us while every source works."""
        said_s = 0.0
        while not stop.wait(TICK_S) and not self._stop.is_set():
            now_s = time.monotonic()
            asked = self.read_again.is_set()
            self.read_again.clear()
            self.local.tick(asked=asked)
            self.baselines.tick()
            alive = all(now_s - loop.beat_s < STALLED_S for loop in self.loops)
            if supervisor.watchdog_s and alive and now_s - said_s > supervisor.watchdog_s / 3:
                said_s = now_s
                supervisor.say("WATCHDOG=1")

    def _runner(self, loop: SourceLoop) -> Callable[[], None]:
        return lambda: loop.run(self._stop)

    def _started(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """A thread whose error stops everything and is raised by `run`."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 -- raised again in the main thread
                self._failure = self._failure or error
                self._stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    @contextlib.contextmanager
    def _thread(
        self, name: str, work: Callable[[], None], stop: threading.Event
    ) -> Iterator[threading.Thread]:
        thread = self._started(name, work)
        try:
            yield thread
        finally:
            stop.set()
            thread.join(JOIN_S)

    def _uplink_thread(
        self, stop: threading.Event
    ) -> contextlib.AbstractContextManager[threading.Thread | None]:
        if self.publisher is None:
            return contextlib.nullcontext()
        publisher = self.publisher
        self._say_open_first(publisher)
        return self._thread("uplink", lambda: publisher.run(stop), stop)

    def _say_open_first(self, publisher: Publisher) -> None:
        """Nothing is open yet: what an earlier run left retained must not stand."""
        publisher.set_open(encode_open([], ts_ms=time.time_ns() // 1_000_000))


def _require_sources(config: Config) -> None:
    if not config.source:
        raise ConfigError(
            "source", "missing: nothing to listen on; `wardwatch sources` lists what there is"
        )


def _make_state_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{path}: cannot be made: {error.strerror}; make it, writable for this user"
        raise ConfigError("site.state_dir", problem) from error


def _site_key(config: Config) -> bytes:
    """The site's key; where the disk takes none, one for this run, and a warning."""
    try:
        return ensure_site_key(config)
    except ConfigError as error:
        if error.path != "site.state_dir":
            raise
        log.warning("%s; pseudonyms are of this run only", error)
        return secrets.token_bytes(32)


def _ports_to_listen_inward(sources: tuple[Source, ...]) -> set[str]:
    """Names of sources that are ports of one bridge: a frame that crosses it counts where it enters.

    Raises `ConfigError` where a bridge and one of its ports are both listened on.
    """
    interfaces = {source.interface: i for i, source in enumerate(sources)}
    inward = set()
    bridges = [bridge_of(source.interface) for source in sources]
    for i, (source, bridge) in enumerate(zip(sources, bridges, strict=True)):
        if bridge is None:
            continue
        if bridge in interfaces:
            problem = f"{source.interface} is a port of {bridge}, which source[{interfaces[bridge]}] listens on"
            raise ConfigError(f"source[{i}].interface", f"{problem}: frames would count twice")
        if bridges.count(bridge) > 1:
            inward.add(source.name)
    return inward


def _report_uplink(error: UplinkError | None) -> None:
    if error is None:
        log.info("uplink: connected")
    else:
        log.warning("uplink: %s; findings wait in the spool", error)


def _report_spool(error: UplinkError | None) -> None:
    if error is None:
        log.info("spool: the disk takes findings again")
    else:
        log.error("%s", error)


def log_to_stderr() -> None:
    """Log lines for a supervisor: it adds the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("wardwatch: %(levelname)s: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
