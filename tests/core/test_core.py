"""Spec, config, registry, buffer, plan and intervals."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from robolearn import registry
from robolearn.buffer import ObservationBuffer
from robolearn.config import config_hash, parse, to_dict
from robolearn.errors import ConfigError, NumericsError, RegistryError, SpecError
from robolearn.intervals import bootstrap_mean, mcnemar, paired_difference, wilson
from robolearn.plan import ChunkPlan
from robolearn.seeding import policy_noise, shuffled_index
from robolearn.spec import ActionSpec, CameraSpec, Feature, Spec, check, require

SPEC = Spec(
    {
        "observation.state": Feature(shape=(3,), unit="m", frame="base"),
        "observation.images.front": Feature("image", (96, 96, 3), "uint8", camera=CameraSpec()),
    },
    ActionSpec(dim=3, kind="ee_pose", unit="m"),
    rate_hz=20.0,
)


# ---------------------------------------------------------------- spec


def _with(**changes):
    data = SPEC.to_dict()
    for path, value in changes.items():
        target, *rest = path.split("__")
        if rest:
            data[target][rest[0]] = value
        else:
            data[target] = value
    return Spec.from_dict(data)


def test_a_spec_round_trips_through_plain_data():
    assert Spec.from_dict(SPEC.to_dict()) == SPEC


def test_the_order_in_which_a_spec_is_written_does_not_matter():
    turned = Spec(dict(reversed(SPEC.observations.items())), SPEC.action, SPEC.rate_hz)
    assert list(turned.observations) == list(SPEC.observations) == sorted(SPEC.observations)


def test_equal_specs_fit():
    assert check(SPEC, SPEC) == []


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"rate_hz": 10.0}, "rate_hz: 10.0 instead of 20.0"),
        ({"action__kind": "joint_position"}, "action.kind: joint_position instead of ee_pose"),
        ({"action__dim": 7}, "action.dim: 7 instead of 3"),
        ({"action__unit": "mm"}, "action.unit: mm instead of m"),
    ],
)
def test_a_mismatch_names_the_fact_and_both_values(changes, fact):
    assert check(_with(**changes), SPEC) == [fact]


def test_feature_mismatches_are_listed_all_at_once():
    given = Spec(
        {
            "observation.state": Feature(shape=(4,), unit="mm"),
            "observation.images.top": SPEC.observations["observation.images.front"],
        },
        SPEC.action,
        20.0,
    )
    with pytest.raises(SpecError) as error:
        require(given, SPEC, ("dataset", "policy"))
    text = str(error.value)
    for part in (
        "The dataset does not give what the policy expects",
        "(4,) instead of (3,)",
        "mm instead of m",
        "did you mean 'observation.images.top'",
    ):
        assert part in text


def test_a_rename_map_makes_names_fit():
    given = Spec({"state": SPEC.observations["observation.state"]}, SPEC.action, 20.0)
    wanted = SPEC.select(("observation.state",))
    assert check(given, wanted)
    assert check(given, wanted, {"observation.state": "state"}) == []


@pytest.mark.parametrize("rate", [0.0, -30.0, float("inf"), 1e9])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(SpecError, match="rate"):
        Spec({}, ActionSpec(dim=1), rate)


# ---------------------------------------------------------------- config


@dataclass(frozen=True)
class Small:
    name: Literal["small"] = "small"
    width: int = 8


@dataclass(frozen=True)
class Large:
    name: Literal["large"] = "large"
    depth: int = 4
    rates: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Options:
    steps: int
    rate: float = 1e-3
    label: str | None = None
    network: Small | Large = field(default_factory=Small)
    mode: Literal["a", "b"] = "a"
    nested: dict[str, int] = field(default_factory=dict)


def test_plain_data_becomes_a_typed_config_and_back():
    config = parse(Options, {"steps": 3, "rate": 1, "network": {"name": "large", "rates": [1, 2.5]}})
    assert config == Options(3, 1.0, network=Large(rates=(1.0, 2.5)))
    assert parse(Options, to_dict(config)) == config
    assert parse(Options, {"steps": 3, "network": {"width": 2}}).network == Small(width=2)
    assert config_hash(config) == config_hash(parse(Options, to_dict(config))) != config_hash(Options(4))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"stesp": 3}, "config.stesp'.*did you mean 'steps'"),
        ({}, "lacks steps"),
        ({"steps": "3"}, r"config.steps has the wrong type.\s+found: '3' \(str\)"),
        ({"steps": True}, "config.steps has the wrong type"),
        ({"steps": 1.5}, "config.steps has the wrong type"),
        ({"steps": 1, "rate": float("nan")}, "not finite"),
        ({"steps": 1, "mode": "c"}, "config.mode is not one of its values"),
        ({"steps": 1, "network": {"name": "larg"}}, "did you mean 'large'"),
        ({"steps": 1, "network": {"name": "small", "depth": 3}}, "Unknown key 'config.network.depth'"),
        ({"steps": 1, "network": {"name": None}}, "name is unknown"),
        ({"steps": 1, "network": {"_target_": "os.system"}}, "Unknown key 'config.network._target_'"),
        ({"steps": 1, "nested": [1]}, "a mapping"),
        ([1], "a mapping of Options"),
    ],
)
def test_bad_data_is_refused_with_the_path(data, text):
    with pytest.raises(ConfigError, match=r"(?s)" + text):
        parse(Options, data)


# ---------------------------------------------------------------- registry


def test_every_registered_name_imports():
    for group in registry.groups():
        for name in registry.names(group):
            if not name.endswith("/*"):
                assert registry.resolve(group, name) is not None


def test_unknown_and_duplicate_names_are_refused():
    with pytest.raises(RegistryError, match="did you mean 'flow'"):
        registry.resolve("policy", "flwo")
    with pytest.raises(RegistryError, match="registered already"):
        registry.register("policy", "flow", "elsewhere:Thing")
    with pytest.raises(RegistryError, match="did you mean 'policy'"):
        registry.names("polcy")


# ---------------------------------------------------------------- buffer and plan


def test_histories_pick_the_newest_observation_not_later_than_their_time():
    buffer = ObservationBuffer(rows=2, history=3, period_s=0.1, capacity=8)
    rows = np.array([0, 1])
    for step in range(8):  # row 0 observes at 10 Hz, row 1 at 20 Hz
        stamps = np.array([0.1 * step, 0.05 * step])
        buffer.append(rows, stamps, {"x": np.array([step, step], np.float32)})
    np.testing.assert_array_equal(buffer.window(rows)["x"], [[5, 6, 7], [3, 5, 7]])


def test_a_restarted_row_forgets_and_others_do_not():
    buffer = ObservationBuffer(rows=2, history=2, period_s=0.1)
    rows = np.array([0, 1])
    for step in range(3):
        buffer.append(rows, np.full(2, 0.1 * step), {"x": np.full((2, 1), step), "task": np.array(["a", "b"])})
    buffer.restart(np.array([1]))
    buffer.append(np.array([1]), np.zeros(1), {"x": np.full((1, 1), 9), "task": np.array(["a longer text"])})
    window = buffer.window(rows)
    np.testing.assert_array_equal(window["x"][..., 0], [[1, 2], [9, 9]])
    assert window["task"].tolist() == [["a", "a"], ["a longer text"] * 2]


@given(start=st.integers(0, 50), delay=st.integers(0, 12), size=st.integers(1, 8))
def test_actions_belong_to_times(start, delay, size):
    plan = ChunkPlan(rows=1, chunk=size, dim=1, period_s=0.05)
    row = np.array([0])
    plan.splice(row, np.array([start * 0.05]), np.arange(size, dtype=float)[None, :, None])
    now = np.array([(start + delay) * 0.05])
    assert plan.action(now)[0, 0] == min(delay, size - 1)
    np.testing.assert_array_equal(plan.remaining(row, now)[0, :, 0], np.minimum(np.arange(size) + delay, size - 1))


def test_a_plan_refuses_what_is_not_finite():
    plan = ChunkPlan(rows=1, chunk=2, dim=1, period_s=0.1)
    with pytest.raises(NumericsError):
        plan.splice(np.array([0]), np.zeros(1), np.array([[[0.0], [np.nan]]]))


# ---------------------------------------------------------------- seeds and intervals


def test_noise_depends_on_seed_episode_and_decision_only():
    first = policy_noise(0, 3, 2, (4, 2))
    np.testing.assert_array_equal(first, policy_noise(0, 3, 2, (4, 2)))
    assert all(not np.array_equal(first, policy_noise(*key, (4, 2))) for key in [(1, 3, 2), (0, 2, 2), (0, 3, 1)])
    many = np.stack([policy_noise(0, i, 0, (16,)) for i in range(500)])
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05


def test_each_epoch_visits_every_sample_once_in_another_order():
    first, second = shuffled_index(100, 0, 0), shuffled_index(100, 0, 1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()


@given(trials=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_equals_scipy(trials, share):
    successes = round(trials * share)
    ours, theirs = wilson(successes, trials), binomtest(successes, trials).proportion_ci(method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, abs=1e-9)


def test_paired_statistics():
    first = [False] * 60 + [True] * 40
    second = [True] * 30 + [False] * 30 + [True] * 40
    assert mcnemar(first, first) == 1.0
    assert mcnemar(first, second) == pytest.approx(binomtest(0, 30).pvalue)
    difference = paired_difference(first, second)
    assert difference.value == pytest.approx(0.3)
    assert 0.2 < difference.low < 0.3 < difference.high < 0.4
    assert bootstrap_mean([2.0, 2.0]) == (2.0, 2.0, 2.0)
