"""Which tools a recording needs, from which Debian package, and what their versions are.

Raises `TestbedError` naming the packages that are missing, or that root is.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable

from converter.testbed.namespaces import TestbedError

TOOLS: dict[str, tuple[str, list[str]]] = {
    "ip": ("iproute2", ["ip", "-V"]),
    "ethtool": ("ethtool", ["ethtool", "--version"]),
    "ping": ("iputils-ping", ["ping", "-V"]),
    "setpriv": ("util-linux", ["setpriv", "--version"]),
    "tcpdump": ("tcpdump", ["tcpdump", "--version"]),
    "mosquitto": ("mosquitto", ["mosquitto", "-h"]),
    "mosquitto_passwd": ("mosquitto", []),
    "mosquitto_pub": ("mosquitto-clients", []),
    "nginx": ("nginx-light", ["nginx", "-v"]),
    "dnsmasq": ("dnsmasq-base", ["dnsmasq", "--version"]),
    "nmap": ("nmap", ["nmap", "--version"]),
    "hping3": ("hping3", ["hping3", "--version"]),
    "arpspoof": ("dsniff", []),
    "ettercap": ("ettercap-text-only", ["ettercap", "--version"]),
}
"""Tool: Debian package, and the command that prints its version (none: it has no such command).

Every recording needs these."""

EXTRA: dict[str, tuple[str, list[str]]] = {
    "nping": ("nmap", ["nping", "--version"]),
    "fping": ("fping", ["fping", "--version"]),
    "t50": ("t50", ["t50", "--version"]),
    "masscan": ("masscan", ["masscan", "--version"]),
    "arp-scan": ("arp-scan", ["arp-scan", "--version"]),
    "arping": ("arping", ["arping", "--help"]),
    "netdiscover": ("netdiscover", []),
    "nc": ("netcat-openbsd", []),
    "mosquitto_sub": ("mosquitto-clients", []),
    "ncrack": ("ncrack", ["ncrack", "--version"]),
    "whatweb": ("whatweb", ["whatweb", "--version"]),
    "wapiti": ("wapiti", ["wapiti", "--version"]),
    "dirb": ("dirb", []),
    "gobuster": ("gobuster", ["gobuster", "version"]),
    "sqlmap": ("sqlmap", ["sqlmap", "--version"]),
    "ffuf": ("ffuf", ["ffuf", "-V"]),
    "wfuzz": ("wfuzz", ["wfuzz", "--version"]),
}
"""Needed only by recordings whose variants use them."""

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing_tools(used: Iterable[str] = ()) -> list[str]:
    """Debian packages whose tool is not found, sorted: of every recording, and of those `used` that are in EXTRA."""
    wanted = TOOLS | _extra(used)
    return sorted(
        {package for tool, (package, _) in wanted.items() if shutil.which(tool, path=_PATH) is None}
    )


def _extra(used: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    names = set(used)
    # dirb's list of words serves the other web scanners too
    names |= {"dirb"} if names & {"gobuster", "ffuf", "wfuzz", "ncrack"} else set()
    return {tool: entry for tool, entry in EXTRA.items() if tool in names}


def require_tools(used: Iterable[str] = ()) -> None:
    """Refuse, in one line, what cannot work: not root, or tools missing (`used`: the steps' tools)."""
    if os.geteuid() != 0:
        raise TestbedError("the testbed makes network namespaces and needs root: run it with sudo")
    packages = missing_tools(used)
    if packages:
        raise TestbedError(f"tools are missing: apt-get install {' '.join(packages)}")


def tool_versions(used: Iterable[str] = ()) -> dict[str, str]:
    """First line of each tool's version that has a number in it."""
    out = {}
    for tool, (_, argv) in (TOOLS | _extra(used)).items():
        if not argv:
            continue
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={"PATH": _PATH, "LC_ALL": "C"}
        )
        lines = (done.stdout + done.stderr).splitlines()
        out[tool] = next((s.strip()[:80] for s in lines if any(c.isdigit() for c in s)), "")
    return out
