"""The long counts at one percent of their size, and all of them with the long tests; see counts.py beside this file."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("counts.py")


@pytest.fixture(scope="module")
def counts(script):
    return script(SCRIPT)


def test_fuzzed_commands_never_break_a_limit_at_the_twin(counts):
    done = counts.fuzz(0, 5000)
    assert done["violations"] == []
    assert done["armed_again"] > 5
    assert {"limited", "position", "not_finite", "shape", "late", "order", "starved", "stall"} <= set(done["events"])


def test_the_checker_at_the_twin_sees_what_breaks_a_limit(counts):
    line = counts.Line()
    line.robot.send(counts.HOME + 0.1, line.now)  # past the filter
    line.twin.tick(line.now)
    line.checker.see(line.scene.told[-1])
    line.check()
    assert {"velocity", "acceleration", "jerk"} <= set(line.violations)


def test_a_policy_that_falls_silent(counts):
    done = counts.drops(0, 8)
    assert max(done["begin_ms"]) <= 100
    assert max(done["rest_ms"]) <= 300
    assert (done["latched"], done["violations"]) == (8, [])


def test_an_executor_that_stands_still(counts):
    done = counts.freezes(0, 8)
    assert (done["held"], done["violations"]) == (8, [])
    assert done["most_beyond_speed_rad"] <= 20 * 0.004**2


def test_resources_stay_flat(counts):
    done = counts.ticks(0, 3000)
    assert (done["same"], done["moving"]) == (True, True)
    assert done["grown_mb"] < 4.0


def test_pieces_add_up(counts):
    pieces = [
        {"events": {"late": 2, "stall": 1}, "policy": {"violations": [], "ends_at_rest": True}, "same": True},
        {"events": {"late": 3}, "policy": {"violations": [], "ends_at_rest": True}, "same": False},
    ]
    total = counts.summarise(pieces)
    assert (total["pieces"], total["events"], total["same"]) == (2, {"late": 5, "stall": 1}, False)
    assert total["policy"] == [{"violations": [], "ends_at_rest": True}] * 2


@pytest.mark.long
@pytest.mark.parametrize("name", ["fuzz", "drops", "freezes", "kills", "ticks", "hour"])
def test_all_of_it(counts, name):
    """Goes on where an earlier run ended; figures are in outputs/hardware/counts.json."""
    done = counts.collect(name, SCRIPT.parents[2] / "outputs" / "hardware")
    assert len(done) == counts.COUNTS[name][1]
    total = counts.summarise(done)
    assert total.get("violations", 0) == 0
    if name == "fuzz":
        assert total["commands"] >= 1_000_000
    if name == "drops":
        assert (total["drops"], total["latched"]) == (1000, 1000)
        assert total["begin_ms"]["p99.9"] <= 100
    if name == "freezes":
        assert total["held"] == total["freezes"] == 1000
    if name == "ticks":
        assert total["ticks"] == 4_320_000
        assert total["same"]
        assert total["grown_mb_max"] < 2.0
    if name == "hour":
        assert max(done[0][f"{who}_grown_mb"] for who in ("policy", "executor", "twin")) < 8.0
        assert all(done[0][f"{who}_same"] for who in ("policy", "executor", "twin"))
    if name == "kills":
        for each in done:
            assert each["policy"]["violations"] == each["freeze"]["violations"] == []
            assert each["policy"]["ends_at_rest"]
            assert each["freeze"]["ends_at_rest"]
            assert each["recorder"]["messages_read"] > 100
            assert each["executor"]["arm_rests_after_ms"] is not None
