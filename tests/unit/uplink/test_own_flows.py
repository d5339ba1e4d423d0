"""Which frames are our own broker connection: exactly its 5-tuple, and nothing else to the broker."""

import numpy as np

from agent.uplink.own_flows import OwnFlows, endpoint_of
from tests.support.packet_tables import table_of, tcp, udp

GATEWAY, BROKER = "10.77.0.1", "10.77.0.12"
FLOW = (endpoint_of(bytes([10, 77, 0, 1])), 40001, endpoint_of(bytes([10, 77, 0, 12])), 8883)


def frames():
    return table_of(
        [
            tcp(1, GATEWAY, BROKER, 40001, 8883),  # ours
            tcp(2, BROKER, GATEWAY, 8883, 40001),  # its answer
            tcp(3, GATEWAY, BROKER, 40002, 8883),  # another program of this machine
            tcp(4, "10.77.0.11", BROKER, 40001, 8883),  # a device
            tcp(5, GATEWAY, "10.77.0.13", 40001, 8883),  # another host
            udp(6, GATEWAY, BROKER, 40001, 8883),
        ]
    )


def test_exactly_our_connection_in_both_directions():
    flows = OwnFlows()
    assert flows(frames()) is None
    flows.opened(FLOW)
    own = flows(frames())
    assert own is not None
    assert np.flatnonzero(own).tolist() == [0, 1]
    assert flows(table_of([])) is None


def test_frames_that_come_after_the_close_are_still_ours():
    flows = OwnFlows()
    flows.opened(FLOW)
    flows.closed(FLOW)
    own = flows(frames())
    assert own is not None
    assert own.tolist() == [True, True, False, False, False, False]


def test_the_number_of_connections_is_bounded():
    flows = OwnFlows()
    for port in range(1, 200):
        flows.opened((FLOW[0], port, FLOW[2], 8883))
    assert len(flows.flows()) == 64
    assert flows.flows()[-1][1] == 199


def test_ipv6():
    flows = OwnFlows()
    local, remote = (endpoint_of(bytes.fromhex(f"20010db8{'0' * 23}{n}")) for n in (1, 2))
    flows.opened((local, 5, remote, 6))
    own = flows(
        table_of(
            [tcp(1, "2001:db8::1", "2001:db8::2", 5, 6), tcp(1, "2001:db8::3", "2001:db8::2", 5, 6)]
        )
    )
    assert own is not None
    assert own.tolist() == [True, False]
