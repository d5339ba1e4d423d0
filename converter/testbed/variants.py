"""The table of variants: kind, name, tool, builder, number of attackers. A new attack is one row of `variants_more`.

The table is also the plans' vocabulary (`variants`, `exclude`) and what `wardwatch-convert testbed check`
prints. Names are stable: labels carry them.
"""

from converter.testbed import attacks as a
from converter.testbed import attacks_mqtt as m
from converter.testbed.attacks import Variant
from converter.testbed.variants_more import MORE

_SAFE_SCRIPTS = (
    "http-enum,http-title,http-headers,http-methods,http-robots.txt,banner,mqtt-subscribe"
)
_VULN_SCRIPTS = "(vuln and not http-slowloris-check and not broadcast*) or mqtt-subscribe"

FIRST_VARIANTS: tuple[Variant, ...] = (
    Variant("tcp_syn_flood", "hping-syn", "hping3", a.hping("-S")),
    Variant("tcp_syn_flood", "hping-syn-payload", "hping3", a.hping("-S", sizes=(40, 120))),
    Variant("tcp_syn_flood", "hping-syn-spoofed", "hping3", a.hping("-S", spoofed=True)),
    Variant("tcp_syn_flood", "hping-syn-spoofed-two", "hping3", a.hping("-S", spoofed=True), 2),
    Variant("tcp_syn_flood", "hping-syn-two", "hping3", a.hping("-S"), 2),
    Variant("tcp_syn_flood", "own-syn", "own", a.own_flood("syn_flood")),
    Variant("tcp_syn_flood", "own-syn-spoofed", "own", a.own_flood("syn_flood", spoofed=True)),
    Variant("tcp_flood", "hping-ack", "hping3", a.hping("-A", sizes=(0, 64))),
    Variant("tcp_flood", "hping-pushack", "hping3", a.hping("-P -A", sizes=(64, 512, 1200))),
    Variant("tcp_flood", "hping-rst", "hping3", a.hping("-R")),
    Variant("tcp_flood", "hping-fin-two", "hping3", a.hping("-F -A"), 2),
    Variant("tcp_flood", "hping-ack-spoofed", "hping3", a.hping("-A", spoofed=True, sizes=(0, 64))),
    Variant("tcp_flood", "hping-ack-spoofed-two", "hping3", a.hping("-A", spoofed=True), 2),
    Variant("udp_flood", "hping-udp", "hping3", a.hping("--udp", sizes=(16, 64, 400))),
    Variant("udp_flood", "hping-udp-large", "hping3", a.hping("--udp", sizes=(1000, 1400))),
    Variant(
        "udp_flood", "hping-udp-spoofed", "hping3", a.hping("--udp", spoofed=True, sizes=(16, 64))
    ),
    Variant(
        "udp_flood",
        "hping-udp-spoofed-two",
        "hping3",
        a.hping("--udp", spoofed=True, sizes=(64,)),
        2,
    ),
    Variant("udp_flood", "own-udp", "own", a.own_flood("udp_flood")),
    Variant("udp_flood", "own-udp-two", "own", a.own_flood("udp_flood"), 2),
    Variant(
        "icmp_flood", "hping-icmp", "hping3", a.hping("--icmp", port=False, sizes=(0, 56, 120))
    ),
    Variant(
        "icmp_flood", "hping-icmp-large", "hping3", a.hping("--icmp", port=False, sizes=(800, 1400))
    ),
    Variant(
        "icmp_flood",
        "hping-icmp-spoofed",
        "hping3",
        a.hping("--icmp", spoofed=True, port=False, sizes=(56,)),
    ),
    Variant(
        "icmp_flood", "hping-icmp-two", "hping3", a.hping("--icmp", port=False, sizes=(56,)), 2
    ),
    Variant("icmp_flood", "ping-flood", "ping", a.ping_flood),
    Variant("port_scan", "nmap-syn", "nmap", a.nmap_scan("-sS -T4", (300, 1000), seconds=4)),
    Variant("port_scan", "nmap-connect", "nmap", a.nmap_scan("-sT -T4", (200, 500), seconds=4)),
    Variant(
        "port_scan",
        "nmap-udp",
        "nmap",
        a.nmap_scan("-sU -T4 --max-retries 1 --host-timeout 18s", (40, 80), seconds=14),
    ),
    Variant(
        "port_scan",
        "nmap-fin",
        "nmap",
        a.nmap_scan("-sF -T4 --max-retries 1", (150, 400), seconds=6),
    ),
    Variant(
        "port_scan",
        "nmap-null",
        "nmap",
        a.nmap_scan("-sN -T4 --max-retries 1", (150, 400), seconds=6),
    ),
    Variant(
        "port_scan",
        "nmap-xmas",
        "nmap",
        a.nmap_scan("-sX -T4 --max-retries 1", (150, 400), seconds=6),
    ),
    Variant(
        "port_scan", "nmap-syn-hosts", "nmap", a.nmap_scan("-sS -T3", (60, 120), seconds=6, hosts=4)
    ),
    Variant(
        "port_scan",
        "nmap-syn-slow",
        "nmap",
        a.nmap_scan("-sS --scan-delay 150ms --max-retries 0", (70, 90), seconds=14),
    ),
    Variant(
        "port_scan",
        "nmap-syn-slower",
        "nmap",
        a.nmap_scan("-sS --scan-delay 700ms --max-retries 0", (36,), seconds=27),
    ),
    Variant(
        "port_scan",
        "nmap-syn-slowest",
        "nmap",
        a.nmap_scan("-sS --scan-delay 2s --max-retries 0", (20,), seconds=42, paced=False),
    ),
    Variant("port_scan", "nmap-ack", "nmap", a.nmap_scan("-sA -T4", (200, 600), seconds=5)),
    Variant("port_scan", "nmap-decoys", "nmap", a.nmap_scan("-sS -T4 -D RND:3", (150,), seconds=6)),
    Variant("port_scan", "nmap-fragments", "nmap", a.nmap_scan("-sS -T4 -f", (200,), seconds=5)),
    Variant("port_scan", "own-connect", "own", a.own_scan),
    Variant("ping_sweep", "nmap-arp", "nmap", a.nmap_sweep("-n -sn", seconds=4)),
    Variant(
        "ping_sweep",
        "nmap-arp-slow",
        "nmap",
        a.nmap_sweep("-n -sn --max-rate 15", seconds=16, size=25),
    ),
    Variant(
        "ping_sweep", "nmap-echo", "nmap", a.nmap_sweep("-n -sn -PE --disable-arp-ping", seconds=8)
    ),
    Variant(
        "ping_sweep", "nmap-echo-routed", "nmap", a.nmap_sweep("-n -sn -PE", seconds=6, routed=True)
    ),
    Variant(
        "ping_sweep",
        "nmap-echo-routed-slow",
        "nmap",
        a.nmap_sweep("-n -sn -PE --max-rate 8", seconds=14, routed=True, size=26),
    ),
    Variant(
        "ping_sweep",
        "nmap-tcp-routed",
        "nmap",
        a.nmap_sweep("-n -sn -PS80,443", seconds=8, routed=True),
    ),
    Variant("ping_sweep", "own-echo", "own", a.own_sweep),
    Variant("os_scan", "nmap-os", "nmap", a.os_scan("--osscan-guess --max-os-tries 1")),
    Variant("os_scan", "nmap-os-twice", "nmap", a.os_scan("--osscan-guess --max-os-tries 2 -T4")),
    Variant("vulnerability_scan", "nmap-versions", "nmap", a.vulnerability_scan(_SAFE_SCRIPTS)),
    Variant("vulnerability_scan", "nmap-vuln", "nmap", a.vulnerability_scan(_VULN_SCRIPTS)),
    Variant(
        "vulnerability_scan", "nmap-web-enum", "nmap", a.vulnerability_scan(_SAFE_SCRIPTS, web=True)
    ),
    Variant(
        "vulnerability_scan", "nmap-web-vuln", "nmap", a.vulnerability_scan(_VULN_SCRIPTS, web=True)
    ),
    Variant("vulnerability_scan", "own-web", "own", a.own_probe),
    Variant("arp_spoofing", "arpspoof-mitm", "arpspoof", a.arpspoof(both=True, forward=True)),
    Variant(
        "arp_spoofing",
        "arpspoof-deny",
        "arpspoof",
        a.arpspoof(both=True, forward=False, hard_stop=True),
    ),
    Variant(
        "arp_spoofing",
        "arpspoof-one-way",
        "arpspoof",
        a.arpspoof(both=False, forward=True, hard_stop=True),
    ),
    Variant("arp_spoofing", "ettercap-mitm", "ettercap", a.ettercap),
    Variant("arp_spoofing", "own-arp", "own", a.own_poison),
    Variant("mqtt_connect_flood", "own-connects", "own", m.connect_flood()),
    Variant("mqtt_connect_flood", "own-connects-held", "own", m.connect_flood(hold=True)),
    Variant("mqtt_connect_flood", "own-connects-slow", "own", m.connect_flood(slow=True)),
    Variant("mqtt_connect_flood", "own-connects-many", "own", m.connect_flood(many=20)),
    Variant("mqtt_connect_flood", "own-connects-two", "own", m.connect_flood(many=5), 2),
    Variant("mqtt_connect_flood", "own-connects-tls", "own", m.connect_flood(tls=True)),
    Variant("mqtt_connect_flood", "own-brute-force", "own", m.brute_force((5.0, 15.0, 40.0))),
    Variant(
        "mqtt_connect_flood",
        "own-brute-force-slow",
        "own",
        m.brute_force((0.7, 1.0, 2.0, 3.0), seconds=(20, 40)),
    ),
    Variant("mqtt_connect_flood", "pub-brute-force", "mosquitto_pub", m.brute_force_pub),
    Variant("mqtt_connect_flood", "own-slow-connects", "own", m.slow_connect),
    Variant(
        "mqtt_publish_flood",
        "own-qos0-coalesced",
        "own",
        m.publish_flood(qos=0, coalesce=True, connections=(1, 4, 8, 20), size=(10, 40)),
    ),
    Variant(
        "mqtt_publish_flood",
        "own-qos0-small",
        "own",
        m.publish_flood(qos=0, coalesce=False, connections=(1, 8, 20), size=(10, 60)),
    ),
    Variant(
        "mqtt_publish_flood",
        "own-qos1",
        "own",
        m.publish_flood(qos=1, coalesce=False, connections=(1, 4, 10), size=(10, 200)),
    ),
    Variant(
        "mqtt_publish_flood",
        "own-qos1-two",
        "own",
        m.publish_flood(qos=1, coalesce=True, connections=(2, 10), size=(20,)),
        2,
    ),
    Variant(
        "mqtt_publish_flood",
        "own-large",
        "own",
        m.publish_flood(qos=0, coalesce=False, connections=(1, 4), size=(1200,)),
    ),
    Variant("mqtt_publish_flood", "paho-publish", "paho", m.publish_flood_paho),
    Variant("mqtt_malformed", "own-mixed", "own", m.malformed((), (5.0, 15.0, 40.0))),
    Variant(
        "mqtt_malformed",
        "own-headers",
        "own",
        m.malformed(("remaining_length", "type15", "type0", "bad_flags"), (5.0, 30.0)),
    ),
    Variant(
        "mqtt_malformed",
        "own-publishes",
        "own",
        m.malformed(
            ("qos3", "wildcard_topic", "long_topic", "packet_id_zero", "bad_utf8"), (5.0, 30.0)
        ),
    ),
    Variant(
        "mqtt_malformed",
        "own-bad-connects",
        "own",
        m.malformed(
            (
                "protocol_name",
                "protocol_level",
                "connect_flags",
                "first_not_connect",
                "second_connect",
            ),
            (5.0, 30.0),
        ),
    ),
    Variant("mqtt_malformed", "own-random", "own", m.malformed(("random",), (10.0, 40.0))),
)
"""What the first plans draw from: a row added here would change their runs; add it to `variants_more`."""

VARIANTS: tuple[Variant, ...] = FIRST_VARIANTS + MORE

KINDS: tuple[str, ...] = tuple(dict.fromkeys(v.kind for v in VARIANTS))
"""The kinds that the testbed makes, in the table's order."""


def variant(name: str, kind: str | None = None) -> Variant:
    """The row of that name (and kind, where two kinds share a name)."""
    return next(v for v in VARIANTS if v.name == name and kind in {None, v.kind})
