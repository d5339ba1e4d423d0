"""The figures of the process and the machine: given where the system gives them, null where not."""

import json

from agent.alert.policy import FindingPolicy
from agent.decode.decoder import PacketDecoder
from agent.features.ip import HostWindows
from agent.health import (
    GAUGES,
    DailyRate,
    Process,
    clock_state,
    encrypted_share,
    quantiles_us,
    split_counters,
    to_bytes,
)


def test_figures_of_this_process():
    figures = Process().figures()
    assert figures["rss_bytes"] > 1_000_000
    assert figures["n_threads"] >= 1
    assert figures["n_open_files"] >= 1
    assert json.loads(to_bytes(figures)) == figures


def test_the_clock_says_whether_it_is_synchronised():
    clock = clock_state()
    assert clock["synced"] in {True, False, None}
    assert clock["monotonic_ms"] > 0
    assert len(clock["boot_id"]) == 36


def test_quantiles():
    assert quantiles_us([]) == {"p50_us": None, "p99_us": None}
    assert quantiles_us([5_000]) == {"p50_us": 5.0, "p99_us": 5.0}
    assert quantiles_us(list(range(0, 101_000, 1000))) == {"p50_us": 50.0, "p99_us": 99.0}


def test_the_start_is_no_days_work():
    rate = DailyRate()
    assert rate.per_day(1.0, 50_000_000) is None
    assert rate.per_day(60.0, 60_000_000) is None
    assert rate.per_day(600.0, 60_000_000) is None
    assert rate.per_day(660.0, 60_600_000) == 86_400_000


def test_the_rate_is_of_the_last_day():
    rate = DailyRate()
    day_s = 86_400.0
    for hour in range(73):
        busy = min(hour, 24)
        found = rate.per_day(100.0 + hour * 3600, busy * 1_000_000)
        if hour == 24:
            assert found == 24_000_000
    assert found == 0
    assert rate.per_day(100.0 + 3 * day_s + 1800, 24_000_000 + 12_000_000) is not None


def test_totals_and_what_is_so_now_stand_apart():
    stages = {
        "decode": {"frames": 9, "mqtt_flows": 2},
        "features": {"hosts": 3, "late": 1},
        "findings": {"open": 1, "created": 4},
        "other": {"n": 5},
    }
    totals, now = split_counters(stages)
    assert now == {"decode": {"mqtt_flows": 2}, "features": {"hosts": 3}, "findings": {"open": 1}}
    assert totals == {
        "decode": {"frames": 9},
        "features": {"late": 1},
        "findings": {"created": 4},
        "other": {"n": 5},
    }


def test_every_gauge_is_a_counter_of_its_stage():
    stages = {
        "decode": PacketDecoder().counters(),
        "features": HostWindows().counters(),
        "findings": FindingPolicy(gateway="g", source="s").counters(),
    }
    for stage, names in GAUGES.items():
        assert set(names) <= set(stages[stage])


def test_how_much_of_mqtt_is_encrypted():
    assert encrypted_share({}) is None
    assert encrypted_share({"mqtt_plain_frames": 3, "mqtt_encrypted_frames": 1}) == 0.25
    assert encrypted_share({"mqtt_plain_frames": 0, "mqtt_encrypted_frames": 7}) == 1.0
