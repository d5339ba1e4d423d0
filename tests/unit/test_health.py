"""The figures of the process and the machine: given where the system gives them, null where not."""

import json

from agent.health import Process, clock_state, quantiles_us, to_bytes


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
