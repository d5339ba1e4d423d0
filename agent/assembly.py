"""Puts a pipeline together from settings: the same stages for live traffic and for replay.

It opens nothing but the bundle and the site's own files (key, devices), and starts no thread.

In: `Config` (or none, for a replay without one). Out: `Watch`, one a capture source.
Raises: `ConfigError`, `BundleError`. Remembers: per source, the devices' addresses and how long scoring took.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.alert import topics
from agent.alert.finding import REPLAY, Context, Moment, encode, to_bytes
from agent.alert.finding import SCHEMA_NAME as FINDING_SCHEMA
from agent.alert.policy import FindingPolicy
from agent.alert.severity import severity_id
from agent.alert.suppression import Suppression
from agent.alert.tuning import Rules
from agent.alert.words import DEFAULT
from agent.config import (
    Config,
    Uplink,
    broker_address,
    check_uplink,
    load_devices,
    read_secret,
    read_user,
)
from agent.decode.decoder import PacketDecoder
from agent.errors import BundleError, BundleReason, ConfigError, UplinkError
from agent.features.ip import HostWindows
from agent.features.schemas import SCHEMAS
from agent.inventory.local_facts import FACTS, LocalFacts
from agent.inventory.sightings import Sightings
from agent.pipeline import Extractor, FlowFilter, Pipeline
from agent.records import (
    MAC_HI,
    Alert,
    Detector,
    Device,
    Endpoint,
    FeatureMatrix,
    PacketTable,
    Verdict,
)
from agent.score.baseline import BaselineDetector
from agent.score.baseline import Settings as LearningSettings
from agent.score.boosting import BoostingDetector
from agent.score.bundle import Bundle, load_bundle, read_public_key
from agent.score.normals import DeviceNormals
from agent.score.rules import RulesDetector
from agent.surroundings import Surroundings, make_surroundings
from agent.tuning import TuningSource
from agent.uplink.message import Message
from agent.uplink.mqtt import Broker
from agent.uplink.tls import tls_context

if TYPE_CHECKING:
    from agent.records import BoolArray

SCHEMA_ID = "ip-1"
BOOSTING = BoostingDetector.name
REPLAY_KEY = b"wardwatch replay without a site key"
"""Pseudonyms of a replay without a configuration: the same again each time, secret to nobody."""
KEY_BYTES = 32
EXPIRY_S = 7 * 86_400
"""How long a broker keeps a finding for a subscriber that is away: its session's own 7 days."""
MAX_LEARNED = 4096
"""Addresses that were seen to belong to a listed MAC address; as many as hosts in the table."""


class DeviceBook:
    """What the site file says, by any address that a listed device was seen with (`DeviceLookup`)."""

    def __init__(self, listed: Mapping[Endpoint, Device]) -> None:
        self._listed = dict(listed)
        self._by_mac = {e.lo: device for e, device in listed.items() if e.hi == MAC_HI}
        self._learned: dict[Endpoint, Device] = {}

    def __call__(self, endpoint: Endpoint) -> Device | None:
        """The device at `endpoint`; None where the site does not list it."""
        return self._listed.get(endpoint) or self._learned.get(endpoint)

    def learn(self, matrix: FeatureMatrix) -> None:
        """Take note of the addresses that listed MAC addresses use."""
        if not self._by_mac or not len(matrix):
            return
        subjects = matrix.subjects
        rows = zip(subjects.mac.tolist(), subjects.hi.tolist(), subjects.lo.tolist(), strict=True)
        for mac, hi, lo in rows:
            device = self._by_mac.get(mac)
            endpoint = Endpoint(hi, lo)
            if device is not None and endpoint not in self._learned:
                if len(self._learned) >= MAX_LEARNED:
                    self._learned.pop(next(iter(self._learned)))
                self._learned[endpoint] = device


class Learning:
    """An extractor that first tells the inventory of each batch, then the device book of each matrix."""

    def __init__(
        self, extractor: Extractor, book: DeviceBook, local: LocalFacts | None = None
    ) -> None:
        self.schema = extractor.schema
        self._extractor = extractor
        self._book = book
        self._local = local

    def add(self, table: PacketTable, *, ignore: BoolArray | None = None) -> FeatureMatrix:
        """As `pipeline.Extractor`."""
        if self._local is not None:
            self._local.add(table)
        return self._told(self._extractor.add(table, ignore=ignore))

    def advance(self, now_ns: int) -> FeatureMatrix:
        """As `pipeline.Extractor`."""
        return self._told(self._extractor.advance(now_ns))

    def flush(self) -> FeatureMatrix:
        """As `pipeline.Extractor`."""
        return self._told(self._extractor.flush())

    def counters(self) -> Mapping[str, int]:
        """As `pipeline.Extractor`."""
        return self._extractor.counters()

    def _told(self, matrix: FeatureMatrix) -> FeatureMatrix:
        self._book.learn(matrix)
        return matrix


class Timed:
    """A detector, and how long its last calls took."""

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self.detector = detector
        self.last_ns: deque[int] = deque(maxlen=1024)
        self.n_rows = 0

    def judge(self, matrix: FeatureMatrix) -> Sequence[Verdict]:
        """As `records.Detector`."""
        began_ns = time.perf_counter_ns()
        verdicts = self.detector.judge(matrix)
        self.last_ns.append(time.perf_counter_ns() - began_ns)
        self.n_rows += len(matrix)
        return verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What every source of this gateway shares."""

    config: Config | None
    context: Context
    book: DeviceBook
    suppressions: tuple[Suppression, ...]
    rules: Rules = field(default_factory=Rules)
    """What people have said, in the settings and by command, as it was at the start."""
    tuning: TuningSource | None = None
    sightings: Sightings | None = None
    """The inventory that all sources share; None: each has its own (a replay)."""
    inventory_began_ns: int | None = None
    """Wall time at which the inventory was begun; None: it begins now."""
    bundle: Bundle | None
    bundle_problem: str | None
    """Why no model is loaded, or why it is scored without onnxruntime; None: nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One source's pipeline and its parts."""

    name: str
    pipeline: Pipeline
    policy: FindingPolicy
    timed: tuple[Timed, ...]
    local: Surroundings
    baseline: BaselineDetector | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the pipeline works, and while `health` reads its counters."""


def make_site(
    config: Config | None,
    *,
    bundle_path: Path | None = None,
    trust: tuple[Path, ...] = (),
    no_model: bool = False,
    raw_addresses: bool | None = None,
    site_key: bytes | None = None,
    config_file: Path | None = None,
    language: str | None = None,
) -> Site:
    """Load what all sources share. Without a configuration: the defaults of a replay."""
    book = DeviceBook(
        load_devices(config.site.devices_file) if config and config.site.devices_file else {}
    )
    bundle: Bundle | None = None
    problem: str | None = "switched off (--no-model)"
    if not no_model:
        bundle, problem = _bundle(config, bundle_path, trust)
    names = config.site if config else None
    raw = config.privacy.raw_addresses if config and raw_addresses is None else bool(raw_addresses)
    schema = SCHEMAS[SCHEMA_ID]
    context = Context(
        site=names.name if names else "replay",
        ward=names.ward if names else "replay",
        gateway=names.gateway if names else "replay",
        version=__version__,
        site_key=site_key or (read_site_key(config) if config else None) or REPLAY_KEY,
        raw_addresses=raw,
        devices=book,
        bundle=bundle.id if bundle else None,
        language=language or (config.alert.language if config else DEFAULT),
        features={**{feature.name: feature.meaning for feature in schema.features}, **FACTS},
    )
    tuning = TuningSource(config, config_file)
    rules = tuning.read()
    return Site(
        config=config,
        context=context,
        book=book,
        suppressions=rules.suppressions,
        rules=rules,
        tuning=tuning,
        bundle=bundle,
        bundle_problem=problem,
    )


def make_watch(
    site: Site,
    name: str,
    *,
    own_flows: FlowFilter | None = None,
    salt: int = 0,
    wall_offset_ns: Callable[[], int] | None = None,
    baseline: BaselineDetector | None = None,
) -> Watch:
    """A pipeline with fresh state. `salt`: random when live, so that groups cannot be made to collide."""
    detectors: list[Detector] = [RulesDetector(SCHEMAS[SCHEMA_ID])]
    boosting = BoostingDetector(site.bundle) if site.bundle is not None else None
    if boosting is not None:
        detectors.append(boosting)
    local = make_surroundings(
        site.config,
        site.rules,
        devices=site.book,
        sightings=site.sightings or Sightings(salt=salt),
        began_ns=site.inventory_began_ns,
        wall_offset_ns=wall_offset_ns or _no_offset,
    )
    facts = local.facts if site.config is not None else None  # else nobody has asked for anything
    if facts is not None:
        detectors.append(facts)
    if baseline is not None:
        detectors.append(baseline)
    timed = tuple(Timed(detector) for detector in detectors)
    settings = site.config.alert if site.config else None
    policy = FindingPolicy(
        gateway=site.context.gateway,
        source=name,
        quiet_s=settings.quiet_s if settings else 120.0,
        burst=settings.burst if settings else "5/min",
        devices=site.book,
        tuning=local.tuning,
        site_key=site.context.site_key,
        confidence_p30={BOOSTING: site.bundle.manifest.score_p30} if site.bundle else None,
        wall_offset_ns=wall_offset_ns or _no_offset,
    )
    if baseline is not None:
        baseline.open_hosts = policy.open_hosts
    pipeline = Pipeline(
        decoder=PacketDecoder(salt=salt),
        extractor=Learning(HostWindows(salt=salt), site.book, facts),
        detectors=timed,
        policy=policy,
        own_flows=own_flows,
        explainer=DeviceNormals(
            SCHEMAS[SCHEMA_ID],
            benign=boosting.benign if boosting else None,
            training=site.bundle.benign_median if site.bundle else None,
        ),
    )
    return Watch(
        name=name, pipeline=pipeline, policy=policy, timed=timed, local=local, baseline=baseline
    )


def make_baseline(site: Site) -> BaselineDetector | None:
    """An empty baseline, as the settings say; None where they switch it off, or there are none."""
    if site.config is None or not site.config.baseline.enabled:
        return None
    return baseline_of(site)


def baseline_of(site: Site) -> BaselineDetector:
    """An empty baseline; by its defaults where there are no settings."""
    settings = LearningSettings()
    if site.config is not None:
        wanted = site.config.baseline
        settings = LearningSettings(
            learn_s=wanted.learn_h * 3600,
            half_life_s=wanted.half_life_days * 86_400,
            findings_per_day=wanted.findings_per_day,
            merge_s=site.config.alert.quiet_s,
        )

    def class_of(host: Endpoint) -> str | None:
        device = site.book(host)
        return device.device_class if device is not None else None

    return BaselineDetector(SCHEMAS[SCHEMA_ID], settings, class_of=class_of)


def _no_offset() -> int:
    """Event time of a capture file is wall time."""
    return 0


def make_message(
    alert: Alert, sequence: int, *, context: Context, moment: Moment = REPLAY
) -> Message:
    """A finding event as it waits in the spool and goes to the broker."""
    topic = topics.alert(
        context.site,
        context.ward,
        context.gateway,
        highest_severity=alert.highest_severity,
        source_kind=alert.source_kind,
        kind=alert.kind,
    )
    return Message(
        topic=topic,
        payload=to_bytes(encode(alert, context=context, sequence=sequence, moment=moment)),
        key=alert.uid,
        severity=severity_id(alert.highest_severity),
        schema=FINDING_SCHEMA,
        expiry_s=EXPIRY_S,
        created_ns=time.time_ns(),
    )


def make_broker(uplink: Uplink, client_id: str) -> Broker:
    """Where the broker is and who we are there. Connects nowhere.

    Raises `ConfigError` where a secret is readable by others, or a certificate is none.
    """
    check_uplink(uplink)
    scheme, host, port = broker_address(uplink.url)
    for key in ("ca", "cert"):
        path = getattr(uplink, key)
        if path is not None and not path.is_file():
            raise ConfigError(f"uplink.{key}", f"{path}: no such file")
    if uplink.key is not None:
        read_secret("uplink.key", uplink.key)
    user, password = read_user(uplink.user_file) if uplink.user_file else (None, None)
    if scheme == "mqtts":
        for name, pair in (("ca", (None, None)), ("cert", (uplink.cert, uplink.key))):
            try:
                tls_context(uplink.ca, *pair)
            except UplinkError as error:
                raise ConfigError(f"uplink.{name}", str(error)) from error
    return Broker(
        host=host,
        port=port,
        client_id=client_id,
        tls=scheme == "mqtts",
        ca=uplink.ca,
        cert=uplink.cert,
        key=uplink.key,
        user=user,
        password=password,
    )


def read_site_key(config: Config) -> bytes | None:
    """The key of the pseudonyms; None where neither `key_file` nor the one in `state_dir` is there."""
    path = config.site.key_file or config.site.state_dir / "site.key"
    try:
        if config.site.key_file is None and not path.exists():
            return None
    except OSError as error:
        problem = f"{config.site.state_dir}: {error.strerror}; it must belong to this user"
        raise ConfigError("site.state_dir", problem) from error
    key = read_secret("site.key_file", path)
    if len(key) < KEY_BYTES:
        raise ConfigError(
            "site.key_file", f"{path}: {len(key)} bytes, expected {KEY_BYTES} or more"
        )
    return key


def ensure_site_key(config: Config) -> bytes:
    """The site's key; made in `state_dir` where there is none. Raises `ConfigError("site.state_dir")`."""
    key = read_site_key(config)
    if key is not None:
        return key
    path = config.site.state_dir / "site.key"
    key = secrets.token_bytes(KEY_BYTES)
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(key)
    except OSError as error:
        problem = (
            f"{path}: cannot be made: {error.strerror}; make the folder, writable for this user"
        )
        raise ConfigError("site.state_dir", problem) from error
    return key


def _bundle(
    config: Config | None, path: Path | None, trust: tuple[Path, ...]
) -> tuple[Bundle | None, str | None]:
    """The bundle that is asked for, or the shipped one. Only a missing shipped one is no error."""
    asked = path or (config.bundle.path if config else None)
    for i, key in enumerate(config.bundle.trust if config else ()):
        try:
            read_public_key(key)
        except BundleError as error:
            raise ConfigError(f"bundle.trust[{i}]", str(error)) from error
    for key in trust:
        read_public_key(key)
    trust += config.bundle.trust if config else ()
    try:
        bundle = load_bundle(asked, trust=trust, schema=SCHEMAS[SCHEMA_ID])
    except BundleError as error:
        if asked is None and error.reason is BundleReason.NOT_FOUND:
            return None, str(error)
        if path is None and asked is not None:
            raise BundleError(error.reason, f"bundle.path: {error}") from error
        raise
    return bundle, bundle.runtime_problem
