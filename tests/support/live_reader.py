"""Reads an interface until its input ends, and writes what it saw: run it inside a namespace.

    python -m tests.support.live_reader INTERFACE OUT.pcap '{"placement": "tap", ...}'

Prints `ready`, and at the end one JSON line. Frames are written with their VLAN tag back in place, as
tcpdump writes them; their times are wall times.
"""

import json
import select
import struct
import sys
from pathlib import Path

from agent.capture.packet_ring import open_live
from agent.capture.packet_socket import bridge_of
from agent.errors import CaptureError
from agent.records import Placement

HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def write(out, batch, wall_offset_ns):
    data = batch.buffer.tobytes()
    for i in range(len(batch)):
        frame = data[batch.offset[i] : batch.offset[i] + batch.caplen[i]]
        wirelen = int(batch.wirelen[i])
        if batch.vlan_tci is not None and batch.vlan_tci[i] >= 0:
            tag = struct.pack("!HH", 0x8100, batch.vlan_tci[i])
            frame, wirelen = frame[:12] + tag + frame[12:], wirelen + 4
        seconds, ns = divmod(int(batch.ts_ns[i]) + wall_offset_ns, 1_000_000_000)
        out.write(struct.pack("<IIII", seconds, ns, len(frame), wirelen) + frame)


def main(interface, path, options):
    options = json.loads(options)
    placement = Placement(options.pop("placement", "tap"))
    told = {"error": None, "reason": None, "retriable": None, "outgoing": 0, "directed": 0}
    try:
        with (
            open_live(interface, placement=placement, **options) as live,
            Path(path).open("wb") as out,
        ):
            out.write(HEADER)
            told |= {"method": live.method, "fallback": live.fallback_reason}
            told |= {"ring_bytes": live.ring_bytes, "bridge": bridge_of(interface)}
            print("ready", flush=True)
            ended = False
            try:
                while True:
                    batch = live.read()
                    if batch is not None:
                        write(out, batch, live.wall_offset_ns)
                        if batch.outgoing is not None:
                            told["directed"] += len(batch)
                            told["outgoing"] += int(batch.outgoing.sum())
                    elif ended:
                        break
                    ended = ended or bool(select.select([sys.stdin], [], [], 0)[0])
            finally:
                told["stats"] = live.stats()
    except CaptureError as error:
        told |= {"error": str(error), "reason": error.reason, "retriable": error.retriable}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
