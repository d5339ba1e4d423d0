"""One finding in full, and the gateway that tells of it."""

from agent.alert.finding import Context
from agent.records import Alert, Device, Fact
from tests.support.verdicts import ATTACKER, SECOND, T0, VICTIM

PUMP = Device(asset_tag="PUMP-07", device_class="infusion_pump", criticality="critical")
CONTEXT = Context(
    site="st-luke",
    ward="icu-2",
    gateway="gw-07",
    version="0.1.0",
    site_key=b"a site's key",
    devices={VICTIM: PUMP}.get,
    bundle="ip-1-20261122-0a1b2c3d",
    features={"in_tcp_syn_1s": "TCP SYN without ACK received"},
)
ALERT = Alert(
    activity="create",
    uid="9a6d0f44-61a7-5a3b-8e0a-000000000001",
    kind="tcp_syn_flood",
    severity="critical",
    highest_severity="critical",
    detectors=("rules", "boosting"),
    attacker=ATTACKER,
    victim=VICTIM,
    spoofed=False,
    distributed=False,
    start_ns=T0,
    last_ns=T0 + SECOND,
    time_ns=T0 + SECOND,
    count=9412,
    source="ward",
    source_kind="ip",
    score=0.99871,
    margin=9412,
    threshold=100,
    ports=(1883,),
    facts=(Fact(feature="in_tcp_syn_1s", value=9412.0, limit=100.0, normal=3.0),),
)
