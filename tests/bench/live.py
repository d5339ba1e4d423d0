"""Live figures: frames at a set rate over a veth pair into the ring, the whole path behind it; loss counted exactly.

    python tests/bench/live.py [--rate 100000] [--seconds 60] [--case mixed] [--nice -10] [--ring-mib 64]

Needs root and tcpreplay. Both ends stand in namespaces that it makes itself. The sender's count, the
kernel's drops and our own count are printed as one JSON line (CONTRACTS.md); nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from agent.bench import record, traffic  # noqa: E402 - the checkout comes first
from tests.support.netns import Lab, missing_tools  # noqa: E402

LOOP_FRAMES = 50_000


def receive(interface: str, seconds: float, ring_mib: int) -> None:
    """In the receiver's namespace: the whole pipeline, model and rules, until `seconds` after the first frame."""
    import psutil

    from agent.assembly import make_site, make_watch
    from agent.capture.packet_ring import open_live
    from agent.records import Placement

    watch = make_watch(make_site(None), "live")
    with open_live(interface, placement=Placement.TAP, ring_mib=ring_mib) as capture:
        print("ready", flush=True)
        n_alerts, deadline_s, cpu_s = 0, time.monotonic() + 30, time.process_time()
        started = False
        while time.monotonic() < deadline_s:
            batch = capture.read()
            if batch is None:
                continue
            if not started:
                started, deadline_s = True, time.monotonic() + seconds
            n_alerts += len(watch.pipeline.push(batch))
        stats = capture.stats() | {
            "rows": watch.pipeline.n_rows,
            "alerts": n_alerts,
            "method": capture.method,
            "rss_mb": psutil.Process().memory_info().rss / 1e6,
            "ring_mb": capture.ring_bytes / 1e6,
        }
        print(json.dumps(stats | {"cpu_s": time.process_time() - cpu_s}), flush=True)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """One run: sender's frames against ours."""
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        capture = Path(folder) / "loop.pcap"
        traffic.write_capture(capture, options.case, LOOP_FRAMES)
        near, far = lab.namespace("send"), lab.namespace("recv")
        lab.veth(near, "eth0", far, "eth0")
        arguments = [sys.executable, __file__, "--receive", "--seconds", str(options.seconds + 3)]
        receiver = far.popen(
            *("nice", "-n", str(options.nice), *arguments, "--ring-mib", str(options.ring_mib)),
            stdout=-1,
            text=True,
        )
        assert receiver.stdout is not None
        receiver.stdout.readline()
        loops = max(1, round(options.rate * options.seconds / LOOP_FRAMES))
        replay = (
            "tcpreplay",
            "--preload-pcap",
            "-q",
            "-i",
            "eth0",
            f"--pps={options.rate}",
            f"--loop={loops}",
            capture,
        )
        sent = near.run(*replay, timeout_s=options.seconds * 3 + 60).stdout
        numbers = json.loads(receiver.stdout.readline())
        receiver.wait()
        receiver.stdout.close()
    n_sent = int(re.search(r"Successful packets:\s+(\d+)", sent).group(1))
    rate = float(re.search(r"([\d.]+) pps", sent).group(1))
    return {
        "bench": "live",
        "stage": "ring to alerts",
        "case": options.case,
        "unit": "frames lost",
        "sent": n_sent,
        "rate_hz": rate,
        "lost": n_sent - numbers["frames"],
        "nice": options.nice,
        "ring_mib": options.ring_mib,
        **numbers,
        "machine": record.machine_facts(),
        "git": record.git_commit(),
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--case", choices=tuple(traffic.CASES), default="mixed")
    parser.add_argument("--nice", type=int, default=-10)
    parser.add_argument("--ring-mib", type=int, default=64)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        receive("eth0", options.seconds, options.ring_mib)
        return
    missing = missing_tools("tcpreplay")
    if missing or os.geteuid() != 0:
        sys.exit(f"live bench: needs root and {' '.join(missing) or 'nothing else'}")
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
