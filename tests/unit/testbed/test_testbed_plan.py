"""A plan is read, checked with dotted paths, and expands to the same runs every time."""

import itertools
from pathlib import Path

import pytest

from agent.errors import ConfigError
from converter.testbed.plan import choices, load_plan
from converter.testbed.schedule import expand
from converter.testbed.variants import KINDS, VARIANTS

PLANS = Path(__file__).parents[3] / "converter" / "testbed" / "plans"

GOOD = """
name = "small"
seed = 11

[[group]]
name = "attack"
runs = 6
duration_s = [100, 120]
episodes = [5, 8]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("runs = 6", 'runs = "six"'), "group[0].runs"),
        (("runs = 6", "rnus = 6\nruns = 6"), "group[0].rnus"),
        (("runs = 6\n", ""), "group[0].runs"),
        (("seed = 11", "seed = 11\nspeed = 2"), "speed"),
        (("seed = 11", "seed = -1"), "seed"),
        (('name = "small"', 'name = "no spaces"'), "name"),
        (("[100, 120]", "[120, 100]"), "group[0].duration_s"),
        (("[100, 120]", "[100]"), "group[0].duration_s"),
        (("[100, 120]", "[1, 2]"), "group[0].duration_s"),
        (("[5, 8]", '[5, 8]\nkinds = ["port_scan", "portscan"]'), "group[0].kinds[1]"),
        (("[5, 8]", '[5, 8]\nexclude = ["nmap-sin"]'), "group[0].exclude[0]"),
        (("[5, 8]", '[5, 8]\nkinds = ["os_scan"]\nvariants = ["nmap-arp"]'), "group[0].variants"),
        (("[5, 8]", "[5, 8]\nload_share = 1.5"), "group[0].load_share"),
    ],
)
def test_a_wrong_key_is_named_by_its_dotted_path(tmp_path, change, path):
    assert change[0] in GOOD
    with pytest.raises(ConfigError) as caught:
        load_plan(write(tmp_path, GOOD.replace(*change)))
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


def test_a_second_group_of_the_same_name_is_refused(tmp_path):
    group = GOOD[GOOD.index("[[group]]") :]
    with pytest.raises(ConfigError) as caught:
        load_plan(write(tmp_path, GOOD + group))
    assert caught.value.path == "group[1].name"


def test_a_missing_file_and_one_that_is_not_toml_are_one_line_each(tmp_path):
    for path in (tmp_path / "absent.toml", write(tmp_path, "name = ")):
        with pytest.raises(ConfigError) as caught:
            load_plan(path)
        assert str(path) in str(caught.value)


def test_a_plan_expands_to_the_same_runs_and_another_seed_to_others(tmp_path):
    plan = load_plan(write(tmp_path, GOOD))
    first, again, other = expand(plan), expand(plan), expand(plan, 12)
    assert [s.digest for s in first] == [s.digest for s in again]
    assert not {s.digest for s in first} & {s.digest for s in other}
    assert not {s.run for s in first} & {s.run for s in other}
    assert len({s.ward.subnet for s in first}) > 1


def test_attacks_of_a_run_follow_each_other_and_fit_into_it(tmp_path):
    for spec in expand(load_plan(write(tmp_path, GOOD))):
        attacks = [s for s in spec.steps if s.lane == "attack"]
        assert attacks
        for before, after in itertools.pairwise(attacks):
            assert after.start_s > before.start_s + before.expect_s
        assert attacks[-1].start_s + attacks[-1].expect_s < spec.duration_s


def test_every_command_stands_on_a_host_of_the_ward_and_every_victim_is_one(tmp_path):
    text = GOOD.replace("runs = 6", "runs = 45\ntable = 2\ntls_share = 0.5\nipv6_share = 0.5")
    text = text.replace("[100, 120]", "[300, 400]")
    seen = set()
    for spec in expand(load_plan(write(tmp_path, text.replace("[5, 8]", "[20, 20]")))):
        names = {h.name for h in spec.ward.hosts} | {"out0", "out1"}
        addresses = {h.ip for h in spec.ward.hosts}
        sixes = {h.ip6 for h in spec.ward.hosts if h.ip6}
        assert len(addresses) == len(spec.ward.hosts) == len({h.mac for h in spec.ward.hosts})
        assert all(int(h.mac[:2], 16) & 1 == 0 for h in spec.ward.hosts)
        for step in spec.steps:
            seen.add((step.kind, step.name))
            assert {c.host for c in step.commands} <= names
            if step.kind:
                assert step.commands
                assert set(step.victims) <= addresses | sixes
                assert {c.host for c in step.commands} == set(step.attackers)
                assert len(step.attackers) == 2 or not step.name.endswith("-two")
    assert {(v.kind, v.name) for v in VARIANTS} <= seen


def test_variant_names_are_unique_so_that_plans_can_name_them():
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)


def test_all_twelve_kinds_are_made():
    assert len(KINDS) == 12


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda p: p.stem)
def test_the_committed_plans_are_good(path):
    plan = load_plan(path)
    assert plan.name == path.stem
    assert len({s.run for s in expand(plan)}) == sum(g.runs for g in plan.group)


def test_the_held_out_plan_has_variants_that_the_first_never_uses():
    first = load_plan(PLANS / "first.toml")
    trained = {
        n for g in first.group if g.episodes[1] for names in choices(g).values() for n in names
    }
    held = {s.name for r in expand(load_plan(PLANS / "heldout.toml")) for s in r.steps if s.kind}
    assert len(held - trained) >= 10
    assert first.seed != load_plan(PLANS / "heldout.toml").seed
