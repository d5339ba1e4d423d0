"""Typed settings from one TOML file. An unknown or mistyped key is an error that names its dotted path.

It never guesses, never falls back to a default for a key that is there but wrong, and never keeps a
secret in the file itself: keys and passwords stand in files of their own, which others cannot read.

In: a path. Out: `Config`, frozen; relative paths are taken from the folder of the file.
Raises: `ConfigError(path, problem)`, always of one line. Remembers: nothing.
Every default is documented in deploy/raspberrypi/agent.example.toml (a test holds the two together).
"""

import csv
import difflib
import ipaddress
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from agent.config_tuning import (
    DAILY,
    NAME,
    SECTIONS,
    Approve,
    Name,
    Role,
    Suppress,
    SuppressionSettings,
    Window,
)
from agent.errors import ConfigError
from agent.records import MAC_HI, V4_MAPPED_LO, Device, Endpoint, Placement

BURST = r"^[1-9][0-9]{0,5}/(s|min|h)$"

__all__ = ["Config", "SuppressionSettings", "load_config", "parse_config"]

T = TypeVar("T")
Burst = Annotated[str, Meta(pattern=BURST)]


class Site(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[site]`: who this gateway is."""

    name: Name
    ward: Name
    gateway: Name
    state_dir: Path = Path("/var/lib/wardwatch")
    """Where the spool lives, and the site key where `key_file` is not given."""
    key_file: Path | None = None
    """32 bytes or more: the key of the pseudonyms. None: made in `state_dir` at the first start."""
    devices_file: Path | None = None
    """CSV: asset_tag, address (MAC or IP), class, criticality."""


class Source(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[source]]`: one interface to listen on."""

    name: Name
    kind: Literal["ip"]
    interface: Annotated[str, Meta(min_length=1, max_length=15)]
    placement: Placement = Placement.TAP
    ring_mib: Annotated[int, Meta(ge=1, le=1024)] = 16
    """Memory that the kernel fills with frames while the agent is busy."""
    on_start_error: Literal["retry", "fail"] = "retry"


class Uplink(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[uplink]`: the hospital's MQTT broker."""

    url: str = ""
    """mqtts://HOST[:8883] or mqtt://HOST[:1883]; empty: none, findings stay in the spool."""
    ca: Path | None = None
    """PEM; None: the system's certificate authorities."""
    cert: Path | None = None
    key: Path | None = None
    user_file: Path | None = None
    """Two lines: user name, password."""
    spool_max_bytes: Annotated[int, Meta(ge=100_000, le=10_000_000_000)] = 50_000_000


class AlertSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[alert]`: how findings live."""

    quiet_s: Annotated[int, Meta(ge=5, le=86_400)] = 120
    """A finding closes after this long without a sign of it."""
    burst: Burst = "5/min"
    """New findings of one detection; what is above becomes one storm finding."""
    language: Literal["en", "fr"] = "en"
    """Of everything in a finding that people read."""


class BundleSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[bundle]`: the model."""

    path: Path | None = None
    """A bundle's folder; None: the one shipped with this version."""
    trust: tuple[Path, ...] = ()
    """Ed25519 public keys (PEM) whose bundles this site trusts."""


class Privacy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[privacy]`."""

    raw_addresses: bool = False
    """True: findings carry addresses beside their pseudonyms."""


class InventorySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[inventory]`: the devices that were seen."""

    new_device_finding: bool = False
    """True: a device that the site file does not list is told once, as a low finding."""
    settle_h: Annotated[float, Meta(ge=0, le=8760)] = 24.0
    """Hours from the first start in which every device is new, and none is told."""


class BaselineSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[baseline]`: what is normal for each device here."""

    enabled: bool = True
    learn_h: Annotated[float, Meta(ge=0.1, le=720)] = 24.0
    """Hours that a device is watched before anything is said of it."""
    half_life_days: Annotated[float, Meta(ge=1, le=365)] = 14.0
    """After so long, what was seen counts half."""
    findings_per_day: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """The alarm budget: false findings a day that the site accepts."""


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    site: Site
    source: Annotated[tuple[Source, ...], Meta(max_length=16)] = ()
    uplink: Uplink = Uplink()
    alert: AlertSettings = AlertSettings()
    suppress: Suppress = ()
    window: Window = ()
    role: Role = ()
    approve: Approve = ()
    inventory: InventorySettings = InventorySettings()
    baseline: BaselineSettings = BaselineSettings()
    bundle: BundleSettings = BundleSettings()
    privacy: Privacy = Privacy()


def load_config(path: Path) -> Config:
    """Read, check and resolve the file at `path`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("", f"{path}: no such file; start from agent.example.toml") from None
    except UnicodeDecodeError:
        raise ConfigError("", f"{path}: not a text file (UTF-8)") from None
    except OSError as error:
        raise ConfigError("", f"{path}: cannot be read: {error.strerror}") from error
    try:
        return parse_config(text, folder=path.parent)
    except ConfigError as error:
        raise ConfigError(error.path, f"{error.problem} [{path}]") from error


def parse_config(text: str, *, folder: Path) -> Config:
    """Check and resolve the TOML in `text`; relative paths are taken from `folder`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("", f"not valid TOML: {error}") from error
    _refuse_radio_sources(tree)
    config = check_tree(tree, Config, folder=folder)
    _check_together(config)
    return config


def check_tree(tree: Any, kind: type[T], *, folder: Path) -> T:
    """A tree of tables as the settings `kind`; raises `ConfigError` with the dotted path of what is wrong."""
    _refuse_unknown(tree, kind, "")

    def decode(wanted: type, value: Any) -> Any:
        if wanted is Path:
            if not isinstance(value, str) or not value:
                raise ValueError("expected the path of a file, a text that is not empty")
            return folder / value
        raise NotImplementedError

    try:
        return msgspec.convert(tree, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _in_words(str(error), kind) from error


def _check_together(config: Config) -> None:
    """What no single key can tell."""
    names = [source.name for source in config.source]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"source[{i}].name", f'"{name}" is used twice')
    check_uplink(config.uplink)


def check_uplink(uplink: Uplink) -> None:
    """Whether the keys of `[uplink]` fit together; raises `ConfigError`."""
    if uplink.url:
        scheme, _, _ = broker_address(uplink.url)
        if scheme != "mqtts":
            for key in ("ca", "cert", "key"):
                if getattr(uplink, key) is not None:
                    raise ConfigError(f"uplink.{key}", "needs a url that begins with mqtts://")
    for one, other in (("cert", "key"), ("key", "cert")):
        if getattr(uplink, one) is not None and getattr(uplink, other) is None:
            raise ConfigError(f"uplink.{other}", f"missing: uplink.{one} needs it")


def broker_address(url: str) -> tuple[str, str, int]:
    """(`mqtt` or `mqtts`, host, port) of a broker's URL; raises `ConfigError("uplink.url")`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError("uplink.url", f'"{url}": {error}') from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        problem = f'"{url}": expected mqtts://HOST[:PORT] or mqtt://HOST[:PORT]'
        raise ConfigError("uplink.url", problem)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("uplink.url", "user and password belong in uplink.user_file")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError("uplink.url", f'"{url}": nothing may follow the port')
    return parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]


DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


def read_secret(key: str, path: Path) -> bytes:
    """The bytes of a secret's file; refused where others can read it. `key`: dotted path for errors."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o007:
            raise ConfigError(key, f"{path}: others can read it; chmod o-rwx {path}")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(key, f"{path}: {error.strerror}") from error


def read_user(path: Path, *, key: str = "uplink.user_file") -> tuple[str, str]:
    """User name and password: the two lines of the file."""
    try:
        lines = read_secret(key, path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(key, f"{path}: not UTF-8") from error
    if len(lines) != 2 or not lines[0]:
        raise ConfigError(key, f"{path}: expected two lines, user name and password")
    return lines[0], lines[1]


COLUMNS = ("asset_tag", "address", "class", "criticality")
CRITICALITIES = ("low", "normal", "critical")


def load_devices(path: Path) -> dict[Endpoint, Device]:
    """The site file: what is known of each device, by its MAC or IP address."""
    key = "site.devices_file"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(key, f"{path}: not a CSV file (UTF-8): {error}") from error
    except OSError as error:
        raise ConfigError(key, f"{path}: cannot be read: {error.strerror}") from error
    if not rows or tuple(cell.strip() for cell in rows[0]) != COLUMNS:
        raise ConfigError(key, f"{path}: the first line must be {','.join(COLUMNS)}")
    devices: dict[Endpoint, Device] = {}
    for number, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        if len(cells) != len(COLUMNS) or not all(cells):
            raise ConfigError(key, f"{where}: expected {len(COLUMNS)} values")
        tag, address, device_class, criticality = cells
        if criticality not in CRITICALITIES:
            raise ConfigError(key, f'{where}: "{criticality}" is none of {_listed(CRITICALITIES)}')
        endpoint = parse_address(address)
        if endpoint is None:
            raise ConfigError(key, f'{where}: "{address}" is no MAC or IP address')
        if endpoint in devices:
            raise ConfigError(key, f"{where}: {address} stands there twice")
        devices[endpoint] = Device(
            asset_tag=tag, device_class=device_class, criticality=criticality
        )
    return devices


def parse_address(text: str) -> Endpoint | None:
    """A MAC or IP address as the records hold it; None where it is neither."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return Endpoint(MAC_HI, int(re.sub("[:-]", "", text), 16))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 4:
        return Endpoint(0, V4_MAPPED_LO | int(address))
    return Endpoint(int(address) >> 64, int(address) & 0xFFFF_FFFF_FFFF_FFFF)


# Errors in words. msgspec says `Expected `int`, got `str` - at `$.source[0].ring_mib``.

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
    "datetime": "a time with its zone, such as 2027-01-31T00:00:00Z",
    "date": "a day",
    "time": "a time of day",
}
PATTERNS = {
    NAME: 'letters, digits, "_" and "-" only, at most 64',
    BURST: 'a number and a unit, such as "5/min" (units: s, min, h)',
    DAILY: 'two times of day, such as "22:00-06:00"',
}


def _refuse_radio_sources(tree: dict[str, Any]) -> None:
    """A radio source has other keys; say that it is not read before complaining about those."""
    sources = tree.get("source")
    for i, source in enumerate(sources if isinstance(sources, list) else ()):
        if isinstance(source, dict) and source.get("kind") in {"ble", "wifi"}:
            problem = f'"{source["kind"]}" is not read by this version; only "ip" is'
            raise ConfigError(f"source[{i}].kind", problem)


def _refuse_unknown(tree: Any, kind: Any, path: str) -> None:
    """Walk the tree beside the types; the first key that no type has is an error."""
    struct = _struct_in(kind)
    if struct is None:
        return
    if isinstance(tree, list):
        for i, item in enumerate(tree):
            _refuse_unknown(item, kind, f"{path}[{i}]")
        return
    if not isinstance(tree, dict):
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in tree.items():
        dotted = f"{path}.{key}" if path else key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {_listed(tuple(fields))}"
            raise ConfigError(dotted, f"unknown key; {hint}")
        _refuse_unknown(value, fields[key], dotted)


def _struct_in(kind: Any) -> type[Struct] | None:
    """The Struct that `kind` is, or holds (a tuple of it, an annotated one)."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    found = (_struct_in(argument) for argument in get_args(kind) if get_origin(kind) is not Literal)
    return next((struct for struct in found if struct is not None), None)


def _choices(path: str, root: type) -> tuple[str, ...]:
    """The texts that the key at `path` may hold, where its type lists them."""
    kind: Any = root
    for name in re.sub(r"\[[\d.]+\]", "", path).split("."):
        struct = _struct_in(kind)
        fields = msgspec.structs.fields(struct) if struct is not None else ()
        kind = next((field.type for field in fields if field.name == name), None)
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return tuple(get_args(kind))
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, Placement) else ()


def _in_words(text: str, kind: type) -> ConfigError:
    problem, _, where = text.partition(" - at `$")
    path = where.rstrip("`").removeprefix(".")
    if missing := re.search(r"missing required field `(\w+)`", problem):
        name = missing[1]
        return ConfigError(f"{path}.{name}" if path else name, "missing; it has no default")
    if choices := _choices(path, kind):
        return ConfigError(path, f"expected one of {_listed(choices)}")
    for pattern, words in PATTERNS.items():
        if pattern in problem:
            return ConfigError(path, f"expected {words}")
    words = re.sub(
        r"`([a-z]+)( \| null)?`",
        lambda m: WORDS.get(m[1], m[1]),
        problem.replace("Expected", "expected"),
    )
    if path in {"source", *SECTIONS} and "a list, got a table" in words:
        words += f"; write [[{path}]]"
    return ConfigError(path, words)


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)
