"""Web and service scanners against the ward's own servers: whatweb, wapiti, dirb, gobuster, sqlmap, ffuf, wfuzz.

Builders like those of `attacks`. Every one is ended by a time limit and reaches only hosts of its ward, whose
namespaces have no way out. `{url}` and `{words}` are filled in; the list of words is dirb's small one.
"""

from random import Random

from converter.testbed.attacks import Attack, Builder, Command, own
from converter.testbed.layout import Host, Ward

WORDS = "/usr/share/dirb/wordlists/small.txt"


def web_scanner(
    words: str, *, seconds: tuple[float, float], paces: tuple[str, ...] = ("",)
) -> Builder:
    """A scanner's command line against the web server; it is ended after `seconds`. `{pace}` is one of `paces`."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        web = ward.named("web")
        figures = {
            "url": f"http://{web.ip}:{ward.web_port}/",
            "host": web.ip,
            "words": WORDS,
            "pace": rng.choice(paces),
            "seed": rng.randrange(1000),
        }
        limit_s = rng.uniform(*seconds)
        command = Command(
            host=attackers[0].name,
            argv=words.format(**figures).split(),
            limit_s=limit_s,
            stop="KILL",
        )
        return Attack(
            commands=[command], victims=[web.ip], expect_s=limit_s + 1, ports=[ward.web_port]
        )

    return build


def banners(rates: tuple[float, ...]) -> Builder:
    """Our own probe of every service of the broker or of the web server."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim = ward.named(rng.choice(("broker", "web")))
        open_ones = [ward.mqtt_port, ward.auth_port] if victim.name == "broker" else [ward.web_port]
        rate = rng.choice(rates)
        count = int(rate * rng.uniform(8, 13))
        command = own(
            attackers[0],
            "banner_probe",
            40,
            dst=victim.ip,
            ports=[*open_ones, 22, 443, 8883, 2575, *open_ones],
            rate=rate,
            count=count,
        )
        return Attack(commands=[command], victims=[victim.ip], expect_s=count / rate + 2)

    return build
