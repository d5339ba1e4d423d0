"""Which tools a recording needs, from which Debian package, and what their versions are.

Raises `TestbedError` naming the packages that are missing, or that root is.
"""

import os
import shutil
import subprocess

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
"""Tool: Debian package, and the command that prints its version (none: it has no such command)."""

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing_tools() -> list[str]:
    """Debian packages whose tool is not found, sorted."""
    return sorted(
        {package for tool, (package, _) in TOOLS.items() if shutil.which(tool, path=_PATH) is None}
    )


def require_tools() -> None:
    """Refuse, in one line, what cannot work: not root, or tools missing."""
    if os.geteuid() != 0:
        raise TestbedError("the testbed makes network namespaces and needs root: run it with sudo")
    packages = missing_tools()
    if packages:
        raise TestbedError(f"tools are missing: apt-get install {' '.join(packages)}")


def tool_versions() -> dict[str, str]:
    """First line of each tool's version that has a number in it."""
    out = {}
    for tool, (_, argv) in TOOLS.items():
        if not argv:
            continue
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={"PATH": _PATH, "LC_ALL": "C"}
        )
        lines = (done.stdout + done.stderr).splitlines()
        out[tool] = next((s.strip()[:80] for s in lines if any(c.isdigit() for c in s)), "")
    return out
