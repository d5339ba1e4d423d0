"""The configuration: what is wrong is said with its dotted path; the example documents every default."""

import os
import re
from pathlib import Path

import msgspec
import pytest

from agent.config import (
    Config,
    Site,
    broker_address,
    load_config,
    load_devices,
    parse_config,
    read_secret,
    read_user,
)
from agent.errors import ConfigError
from agent.records import MAC_HI, V4_MAPPED_LO, Device, Endpoint, Placement

EXAMPLE = Path(__file__).parents[2] / "deploy" / "raspberrypi" / "agent.example.toml"
SITE = '[site]\nname = "s"\nward = "w"\ngateway = "g"\n'
SOURCE = '[[source]]\nname = "ward"\nkind = "ip"\ninterface = "br0"\n'


def test_the_example_is_valid():
    config = load_config(EXAMPLE)
    assert config.site == Site(name="st-luke", ward="icu-2", gateway="gw-07")
    assert [source.interface for source in config.source] == ["br0"]


def test_uncommenting_the_defaults_of_the_example_changes_nothing():
    text = EXAMPLE.read_text()
    uncommented, n = re.subn(r"(?m)^#(?=[a-z_]+ = )", "", text)
    assert n >= 10
    folder = EXAMPLE.parent
    assert parse_config(uncommented, folder=folder) == parse_config(text, folder=folder)


def test_the_example_names_every_key():
    text = EXAMPLE.read_text()

    def keys(struct: type[msgspec.Struct]) -> list[str]:
        return [field.name for field in msgspec.structs.fields(struct)]

    for section in msgspec.structs.fields(Config):
        assert re.search(rf"(?m)^(# )?\[\[?{section.name}\]", text), section.name
        struct = section.type
        while not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
            struct = struct.__args__[0] if hasattr(struct, "__args__") else struct.__origin__
        for key in keys(struct):
            assert re.search(rf"(?m)^(#|# )?{key} = ", text), f"{section.name}.{key}"


WRONG = {
    # name: (text, dotted path, what the line says)
    "typo": (SITE + SOURCE + 'plcement = "tap"', "source[0].plcement", 'did you mean "placement"?'),
    "second": (
        SITE + SOURCE + SOURCE.replace('"ward"', '"b"') + "ringmib = 1",
        "source[1].ringmib",
        'did you mean "ring_mib"?',
    ),
    "section": (SITE + "[uplnk]\n", "uplnk", 'did you mean "uplink"?'),
    "unlike any": (SITE + "[privacy]\nxyz = 1", "privacy.xyz", 'known are "raw_addresses"'),
    "type": (
        SITE + SOURCE + 'ring_mib = "16"',
        "source[0].ring_mib",
        "expected a whole number, got a text",
    ),
    "boolean": (SITE + "[privacy]\nraw_addresses = 1", "privacy.raw_addresses", "true or false"),
    "range": (SITE + SOURCE + "ring_mib = 0", "source[0].ring_mib", ">= 1"),
    "choice": (
        SITE + SOURCE + 'placement = "bridge"',
        "source[0].placement",
        'one of "tap", "gateway"',
    ),
    "literal": (
        SITE + SOURCE + 'on_start_error = "x"',
        "source[0].on_start_error",
        '"retry", "fail"',
    ),
    "missing": ('[site]\nname = "s"\nward = "w"', "site.gateway", "missing"),
    "no site": ("", "site", "missing"),
    "no interface": (
        SITE + '[[source]]\nname = "a"\nkind = "ip"',
        "source[0].interface",
        "missing",
    ),
    "topic characters": (SITE.replace('"w"', '"a/b"'), "site.ward", "letters, digits"),
    "burst": (SITE + '[alert]\nburst = "often"', "alert.burst", '"5/min"'),
    "radio": (
        SITE + '[[source]]\nname = "r"\nkind = "ble"\nadapter = "hci1"',
        "source[0].kind",
        "not read by this version",
    ),
    "twice": (SITE + SOURCE + SOURCE, "source[1].name", "used twice"),
    "table": (SITE + 'uplink = "x"', "site.uplink", "unknown key"),
    "not a table": ('alert = "x"\n' + SITE, "alert", "expected a table, got a text"),
    "path": (SITE + "key_file = 3", "site.key_file", "path of a file"),
    "scheme": (SITE + '[uplink]\nurl = "http://b"', "uplink.url", "mqtts://HOST"),
    "port": (SITE + '[uplink]\nurl = "mqtt://b:99999"', "uplink.url", "99999"),
    "password": (SITE + '[uplink]\nurl = "mqtt://u:p@b"', "uplink.url", "uplink.user_file"),
    "ca without tls": (SITE + '[uplink]\nurl = "mqtt://b"\nca = "c"', "uplink.ca", "mqtts://"),
    "cert alone": (SITE + '[uplink]\nurl = "mqtts://b"\ncert = "c"', "uplink.key", "needs it"),
    "syntax": (SITE + "\nx = \ny = 1", "", "line 6"),
    "suppression for ever": (
        SITE + '[[suppress]]\nname="n"\ndetection="*"\nwhere="10.0.0.0/8"\nreason="r"\nauthor="a"',
        "suppress[0].expires",
        "missing",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_dotted_path(name: str, tmp_path: Path):
    text, path, words = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        parse_config(text, folder=tmp_path)
    assert caught.value.path == path
    assert words in caught.value.problem
    assert "\n" not in str(caught.value)
    assert "`" not in str(caught.value)


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path):
    file = tmp_path / "agent.toml"
    file.write_text(
        SITE + 'key_file = "site.key"\nstate_dir = "/abs"\n' + SOURCE + 'placement = "gateway"\n'
        '[bundle]\ntrust = ["a.pub"]\n'
    )
    config = load_config(file)
    assert config.site.key_file == tmp_path / "site.key"
    assert config.site.state_dir == Path("/abs")
    assert config.bundle.trust == (tmp_path / "a.pub",)
    assert config.source[0].placement is Placement.GATEWAY


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        load_config(binary)
    wrong = tmp_path / "w.toml"
    wrong.write_text(SITE + "[alert]\nquiets = 1")
    with pytest.raises(ConfigError, match=r"^alert\.quiets: unknown key; .*w\.toml\]$"):
        load_config(wrong)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtts://broker", ("mqtts", "broker", 8883)),
        ("mqtt://10.0.0.1:2883", ("mqtt", "10.0.0.1", 2883)),
        ("mqtts://[2001:db8::1]:1", ("mqtts", "2001:db8::1", 1)),
    ],
)
def test_broker_urls(url: str, expected: tuple[str, str, int]):
    assert broker_address(url) == expected


def test_secrets_that_others_can_read_are_refused(tmp_path: Path):
    file = tmp_path / "user"
    file.write_text("gw-07\npa:ss word\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read it; chmod o-rwx"):
        read_user(file)
    file.chmod(0o640)
    assert read_user(file) == ("gw-07", "pa:ss word")
    file.write_text("only-one-line\n")
    with pytest.raises(ConfigError, match="two lines"):
        read_user(file)
    with pytest.raises(ConfigError, match=r"^site\.key_file: .*No such file"):
        read_secret("site.key_file", tmp_path / "none")


HEADER = "asset_tag,address,class,criticality\n"


def test_devices_by_mac_and_ip(tmp_path: Path):
    file = tmp_path / "devices.csv"
    file.write_text(
        HEADER + "# a comment\nPUMP-07, 02:00:00:00:00:07 ,infusion_pump,critical\n\n"
        "MON-1,10.0.0.9,patient_monitor,normal\nV6,2001:db8::1,x,low\n"
    )
    devices = load_devices(file)
    assert devices == {
        Endpoint(MAC_HI, 0x020000000007): Device(
            asset_tag="PUMP-07", device_class="infusion_pump", criticality="critical"
        ),
        Endpoint(0, V4_MAPPED_LO | 0x0A000009): Device(
            asset_tag="MON-1", device_class="patient_monitor", criticality="normal"
        ),
        Endpoint(0x20010DB800000000, 1): Device(
            asset_tag="V6", device_class="x", criticality="low"
        ),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first line must be"),
        ("a,b\n", "first line must be"),
        (HEADER + "P,10.0.0.1,x\n", "line 2: expected 4 values"),
        (HEADER + "P,10.0.0.1,x,high\n", 'line 2: "high" is none of'),
        (HEADER + "P,10.0.0.300,x,low\n", 'line 2: "10.0.0.300" is no MAC or IP address'),
        (HEADER + "P,10.0.0.1,x,low\nQ,10.0.0.1,x,low\n", "line 3: 10.0.0.1 stands there twice"),
    ],
)
def test_a_wrong_devices_file_is_said_with_its_line(tmp_path: Path, text: str, words: str):
    file = tmp_path / "devices.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load_devices(file)
    assert caught.value.path == "site.devices_file"


def test_a_devices_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_devices(tmp_path / f"none-{os.getpid()}.csv")
