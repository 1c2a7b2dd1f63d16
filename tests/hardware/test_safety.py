"""The safety filter against an independent checker: whatever comes in, what goes out keeps every limit."""

from dataclasses import replace

import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.hardware.braking import approach, brake, fading, stopping
from robolearn.hardware.limits import limits_of
from robolearn.hardware.safety import Command, Mode, SafetyState, arm, at_rest, disarm, hold, step, stop
from robolearn.robots.panda import PANDA

MS = 1_000_000
PERIOD = 4 * MS


class Arm:
    """Runs the filter tick by tick on an arm that follows exactly."""

    def __init__(self, limits, checker, at, start):
        self.limits, self.checker, self.at = limits, checker, at
        self.now, self.period, self.position = 1_000 * MS, PERIOD, np.array(start, float)
        self.state = arm(limits, SafetyState(), at(self.position, self.now), self.now)
        checker.start(self.position)
        self.events = []

    def tick(self, target=None, velocity=None, stamp=None, measured="exact", wait=None):
        self.now += self.period if wait is None else wait
        command = None
        if target is not None:
            target = np.asarray(target, float)
            velocity = np.zeros(np.shape(target)) if velocity is None else np.asarray(velocity, float)
            command = Command(target, velocity, self.now if stamp is None else stamp)
        reading = self.at(self.position, self.now) if isinstance(measured, str) else measured
        self.state, decision = step(self.limits, self.state, command, reading, self.now)
        self.events += decision.events
        if decision.send is not None:
            self.position = decision.send
            self.checker.see(decision.send)
        return decision

    def run(self, target, ticks):
        return [self.tick(target) for _ in range(ticks)][-1]


@pytest.fixture
def panda(limits, checker, at, home):
    return Arm(limits, checker(), at, home)


def test_a_near_target_is_reached_exactly_and_stays(panda, home):
    panda.run(home + 0.1, 600)
    assert panda.state.mode == Mode.RUN
    assert np.allclose(panda.position, home + 0.1, atol=1e-6)
    assert panda.checker.violations() == []


def test_a_smooth_stream_passes_unchanged(panda, home):
    panda.run(home, 5)
    for i in range(1500):
        phase = 2 * np.pi * 0.2 * i / 250
        panda.events.clear()
        target = home + 0.15 * (1 - np.cos(phase))
        decision = panda.tick(target, 0.15 * 2 * np.pi * 0.2 * np.sin(phase) * np.ones(7))
        assert decision.send.tolist() == target.tolist()
        assert panda.events == []
    assert panda.checker.violations() == []


def test_a_jump_of_the_target_is_smoothed_and_caught_up(panda, home):
    panda.run(home, 5)
    panda.run(home + 0.25, 3)
    assert "limited" in panda.events
    panda.run(home + 0.25, 700)
    assert np.allclose(panda.position, home + 0.25, atol=1e-6)
    assert panda.checker.violations() == []


def test_a_moving_target_is_caught_up_with_after_a_jump(panda, home):
    panda.run(home, 5)
    speed = 0.1 * np.ones(7)
    lag = [np.abs(panda.tick(home + 0.1 + i * 0.0004, speed).send - home - 0.1 - i * 0.0004).max() for i in range(900)]
    assert lag[0] > 0.05
    assert lag[-1] == 0.0
    assert panda.checker.violations() == []


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("joint", range(7))
def test_no_joint_passes_its_limit(panda, limits, home, joint, sign):
    panda.run(home, 5)
    target = home.copy()
    target[joint] += sign * 10
    panda.run(target, 1200)
    assert "position" in panda.events
    assert panda.checker.violations() == []
    bound = limits.high_rad if sign > 0 else limits.low_rad
    assert sign * (bound[joint] - panda.position[joint]) >= 0
    assert sign * (panda.position[joint] - home[joint]) > 0.1


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_a_joint_rests_at_its_limit_whatever_lies_beyond(panda, limits, home, speed):
    """Joint 7 turns the tool in place: nothing else stops it before its limit."""
    target = home + 10.0 * np.eye(7)[6]
    for _ in range(900):
        panda.tick(target if len(panda.checker.sent) > 10 else home, speed * np.eye(7)[6])
    panda.events.clear()
    panda.run(target, 5)
    assert panda.position[6] == pytest.approx(limits.high_rad[6], abs=1e-6)
    assert panda.events == ["position"] * 5
    assert panda.checker.violations() == []


def test_the_limits_are_used_not_only_kept(limits, checker, at, home):
    """Joint 7 turns the tool in place: it may use its whole speed and acceleration."""
    panda = Arm(limits, checker(), at, home)
    panda.run(home, 5)
    target = home.copy()
    target[6] -= 3.0
    panda.run(target, 500)
    q = np.array(panda.checker.sent)[:, 6]
    assert np.abs(np.diff(q)).max() / 0.004 > 0.9 * limits.velocity_rad_s[6]
    assert np.abs(np.diff(q, 2)).max() / 0.004**2 > 0.75 * limits.acceleration_rad_s2[6]
    assert panda.checker.violations() == []


def test_tool_speed_is_held_and_used(limits, checker, at, home):
    panda = Arm(limits, checker(), at, home)
    panda.run(home, 5)
    target = home.copy()
    target[0] += 1.5
    ticks = [panda.tick(target).send for _ in range(700)]
    tool = limits.kinematics.tool(np.array(ticks))
    speed = np.linalg.norm(np.diff(tool, axis=0), axis=1) / 0.004
    assert 0.2 < speed.max() <= 0.25 * (1 + 1e-6)
    assert panda.checker.violations() == []


def test_the_workspace_is_held(home, checker, at):
    from robolearn.hardware.limits import SafetyConfig, limits_of
    from robolearn.robots.panda import PANDA

    high = (0.9, 0.1, 1.3)
    limits = limits_of(PANDA, 250.0, SafetyConfig(workspace_high_m=high))
    panda = Arm(limits, checker(box=((-0.9, -0.9, -0.1), high)), at, home)
    panda.run(home, 5)
    target = home.copy()
    target[0] += 1.0
    panda.run(target, 800)
    assert 0.02 < limits.kinematics.tool(panda.position[None])[0, 1] <= 0.1
    assert panda.checker.violations() == []


# ---------------------------------------------------------------- refusals


def refused(panda, home, event, **tick):
    """One bad tick in a running stream: nothing jumps, the event is counted, the stream goes on after it."""
    panda.run(home, 5)
    panda.events.clear()
    before = panda.position
    panda.tick(**tick)
    assert panda.events == [event]
    assert np.abs(panda.position - before).max() < 1e-9
    panda.events.clear()
    panda.tick(home)
    assert panda.events == []
    assert panda.state.mode == Mode.RUN


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_refused(panda, home, value):
    bad = home.copy()
    bad[3] = value
    refused(panda, home, "not_finite", target=bad)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_velocity_that_is_not_finite_is_refused(panda, home, value):
    refused(panda, home, "not_finite", target=home, velocity=np.full(7, value))


@pytest.mark.parametrize("size", [0, 1, 6, 8, 14])
def test_a_target_of_the_wrong_size_is_refused(panda, home, size):
    refused(panda, home, "shape", target=np.zeros(size))


def test_a_velocity_of_the_wrong_size_is_refused(panda, home):
    refused(panda, home, "shape", target=home, velocity=np.zeros(6))


def test_an_object_array_is_refused(panda, home):
    panda.run(home, 5)
    command = Command(np.array([None] * 7), np.zeros(7), panda.now + PERIOD)
    state, decision = step(panda.limits, panda.state, command, panda.at(home, panda.now + PERIOD), panda.now + PERIOD)
    assert decision.events == ("shape",)
    assert state.mode == Mode.RUN


def test_a_late_target_is_refused(panda, home):
    refused(panda, home, "late", target=home, stamp=1_000 * MS + 6 * PERIOD - 101 * MS)


def test_a_target_from_the_future_is_refused(panda, home):
    refused(panda, home, "late", target=home, stamp=1_000 * MS + 6 * PERIOD + 21 * MS)


def test_a_duplicate_target_is_refused(panda, home):
    refused(panda, home, "order", target=home, stamp=1_000 * MS + 5 * PERIOD)


def test_a_reordered_target_is_refused(panda, home):
    refused(panda, home, "order", target=home, stamp=1_000 * MS + 4 * PERIOD)


def test_edges_of_age_are_accepted(panda, home):
    panda.tick(home, stamp=panda.now + PERIOD - 100 * MS)
    panda.tick(home, stamp=panda.now + PERIOD + 20 * MS)
    assert panda.events == []


def test_a_missing_target_decelerates_at_once_then_latches(panda, home):
    panda.run(home, 5)
    while np.abs(panda.state.velocity[6]) < 1.0:
        panda.tick(home + np.eye(7)[6] * -2)
    speeds = []
    for _ in range(40):
        panda.tick()
        speeds.append(np.abs(panda.state.velocity[6]))
    assert speeds[3] < speeds[0]
    assert speeds[-1] == 0
    assert panda.state.mode == Mode.HOLD
    assert panda.state.reason == "command_age"
    still = panda.position
    panda.run(home, 50)
    assert panda.position.tolist() == still.tolist()
    assert panda.state.mode == Mode.HOLD
    assert panda.checker.violations() == []


def test_the_arm_waits_for_its_first_target(panda, home):
    for _ in range(200):
        panda.tick()
    assert panda.state.mode == Mode.RAMP_IN
    assert panda.position.tolist() == home.tolist()


def test_a_first_target_too_far_away_latches_hold(panda, home):
    panda.tick(home + 0.31)
    assert (panda.state.mode, panda.state.reason) == (Mode.HOLD, "start_too_far")
    assert panda.position.tolist() == home.tolist()


def test_a_first_target_within_reach_is_accepted(panda, home):
    panda.tick(home + 0.299)
    assert panda.state.mode == Mode.RAMP_IN


def test_a_first_target_at_the_very_edge_is_accepted(limits, checker, at, home):
    edged = replace(limits, options=replace(limits.options, start_rad=0.25))  # as home is 0 there, exactly
    panda = Arm(edged, checker(), at, home)
    panda.tick(home + 0.25 * np.eye(7)[0])
    assert home[0] == 0.0
    assert panda.state.mode == Mode.RAMP_IN


def test_ramping_in_is_slow(panda, limits, home):
    target = home.copy()
    target[6] -= 0.29
    while panda.state.mode == Mode.RAMP_IN:
        panda.tick(target)
    speed = np.abs(np.diff(np.array(panda.checker.sent), axis=0)).max() / 0.004
    assert 0.2 * limits.velocity_rad_s[6] < speed <= 0.3 * limits.velocity_rad_s[6] * 1.001
    assert panda.state.mode == Mode.RUN


def test_the_ramp_ends_where_braking_is_slower(panda, limits, home):
    target, left = home - 0.29 * np.eye(7)[6], []
    while panda.state.mode == Mode.RAMP_IN:
        panda.tick(target)
        left.append(abs(target[6] - panda.position[6]))
    speed, brisk = 0.3 * limits.velocity_rad_s[6], 0.8 * limits.acceleration_rad_s2[6]
    ends = speed**2 / (2 * brisk) + speed * brisk / (2 * 0.8 * limits.jerk_rad_s3[6])
    assert left[-1] < ends <= left[-2]


def test_what_is_left_when_braking_from_a_share_of_the_speed(limits):
    left, share = stopping(limits, 0.3), 0.3
    for j in range(7):
        speed, brisk = share * limits.velocity_rad_s[j], 0.8 * limits.acceleration_rad_s2[j]
        jerk = 0.8 * limits.jerk_rad_s3[j]
        assert left[j] == pytest.approx(speed * speed / brisk / 2 + speed * brisk / jerk / 2, rel=1e-9)


def test_an_approach_slows_down_where_it_must(home):
    """Just before the distance that stopping takes it keeps its speed, just after it does not."""
    limits, share, turning = limits_of(PANDA, 5000.0), 0.05, np.eye(7)[6]
    velocity = share * limits.velocity_rad_s * turning
    for nearer, slows in ((1.01, False), (0.99, True)):
        target = home + nearer * stopping(limits, share) * turning
        ahead = approach(limits, (home, velocity, np.zeros(7)), target, np.zeros(7), share)
        assert ((ahead - home)[6] / limits.period_s < velocity[6] * (1 - 1e-6)) == slows


def test_an_approach_hardly_overshoots(home):
    """At a rate so high that the way the acceleration fades out decides, not the tick."""
    limits, turning = limits_of(PANDA, 5000.0), np.eye(7)[6]
    motion, way = (home, np.zeros(7), np.zeros(7)), []
    for _ in range(1000):
        ahead = approach(limits, motion, home + 0.02 * turning, np.zeros(7), 1.0)
        velocity = (ahead - motion[0]) / limits.period_s
        motion = ahead, velocity, (velocity - motion[1]) / limits.period_s
        way.append((ahead - home)[6])
    assert max(way) < 1.03 * 0.02
    assert way[-1] == pytest.approx(0.02, abs=1e-4)


def test_an_arm_at_rest_needs_no_way_to_rest(limits, home):
    assert len(brake(limits, home, np.zeros(7), np.zeros(7))) == 0


def test_braking_ends_at_rest_from_any_motion(home):
    """Sampled so finely that the last difference is the speed at the end."""
    limits, draw = limits_of(PANDA, 20_000.0), np.random.default_rng(0)
    for scale in (1.0, 0.05, 0.005):
        for _ in range(20):
            acceleration = draw.uniform(-1, 1, 7) * limits.acceleration_rad_s2
            velocity = scale * draw.uniform(-1, 1, 7) * limits.velocity_rad_s
            path = np.concatenate([home[None], brake(limits, home, velocity, acceleration)])
            rates = np.diff(path, axis=0) / limits.period_s
            changes = np.diff(np.concatenate([velocity[None], rates]), axis=0) / limits.period_s
            assert np.abs(rates[-1]).max() < 1e-4
            assert (np.abs(changes) <= 1.001 * limits.acceleration_rad_s2).all()


def test_a_gap_fades_smoothly_from_what_it_was_to_nothing():
    gap = np.array([[0.01, -0.02], [0.3, 0.0], [2.0, -5.0]])
    times, step = np.linspace(0.0, 0.2, 2001), 0.2 / 2000
    way = np.array([fading(gap, 0.2, time) for time in times])
    assert way[0] == pytest.approx(gap)
    assert np.abs(way[-1]).max() == 0
    assert np.abs(way[-2]).max() < 0.5  # the acceleration too goes to nothing, by 250 rad/s3 here
    slopes = (way[2:] - way[:-2])[:, :2] / (2 * step)
    assert slopes == pytest.approx(way[1:-1, 1:], abs=1e-2)
    alone = np.array([fading(np.array([[0.01], [0.0], [0.0]]), 0.2, time)[0, 0] for time in times])
    assert np.abs(np.diff(alone, 3)).max() / step**3 == pytest.approx(60 * 0.01 / 0.2**3, rel=0.01)
    assert np.abs(fading(gap, 0.0, 0.0)).max() == np.abs(fading(gap, 0.2, 0.3)).max() == 0


def test_a_target_that_never_rests_does_not_keep_the_arm_ramping_in(panda, home):
    for i in range(50):
        panda.tick(home + 0.01 * (-1) ** (i // 5))
    assert panda.state.mode == Mode.RUN


def test_one_far_joint_keeps_the_arm_ramping_in(panda, home):
    panda.run(home + 0.25 * np.eye(7)[0], 3)
    assert panda.state.mode == Mode.RAMP_IN


def stop_by(panda, home, reason, **tick):
    panda.run(home, 5)
    while np.abs(panda.state.velocity[6]) < 0.5:
        panda.tick(home + np.eye(7)[6] * -2)
    panda.tick(home, **tick)
    assert (panda.state.mode, panda.state.reason) == (Mode.HOLD, reason)
    assert panda.events[-1] == reason
    panda.run(home, 100)
    assert np.abs(panda.state.velocity).max() == 0
    assert panda.checker.violations() == []


def test_a_missing_state_holds(panda, home):
    stop_by(panda, home, "state_missing", measured=None)


@pytest.mark.parametrize("age", [101 * MS, -21 * MS, 3600 * 1000 * MS])
def test_a_stale_state_or_one_from_the_future_holds(panda, home, at, age):
    panda.run(home, 5)
    panda.tick(home, measured=at(home, panda.now + PERIOD - age))
    assert (panda.state.mode, panda.state.reason) == (Mode.HOLD, "state_age")


@pytest.mark.parametrize("age", [100 * MS, -20 * MS])
def test_edges_of_state_age_are_accepted(panda, home, at, age):
    panda.run(home, 5)
    panda.tick(home, measured=at(home, panda.now + PERIOD - age))
    assert panda.state.mode == Mode.RUN


def test_other_joints_hold(panda, home, at):
    stop_by(panda, home, "state_joints", measured=at(home, 0, names=[f"other{i}" for i in range(7)]))


def test_a_missing_joint_holds(panda, home, at):
    stop_by(panda, home, "state_joints", measured=at(home[:6], 0, names=panda.limits.names[:6]))


def test_a_state_that_is_not_finite_holds(panda, home, at):
    stop_by(panda, home, "state_not_finite", measured=at(np.full(7, np.nan), 0))


@pytest.mark.parametrize(("error", "mode"), [(0.201, Mode.HOLD), (-0.201, Mode.HOLD), (0.199, Mode.RUN)])
def test_a_tracking_error_holds(panda, home, at, error, mode):
    panda.run(home, 5)
    off = home.copy()
    off[4] += error
    panda.tick(home, measured=at(off, panda.now + PERIOD))
    assert panda.state.mode == mode


@pytest.mark.parametrize(("wait", "mode"), [(101 * MS, Mode.HOLD), (-1, Mode.HOLD), (99 * MS, Mode.RUN), (0, Mode.RUN)])
def test_a_stall_or_a_clock_that_goes_back_holds(panda, home, wait, mode):
    panda.run(home, 5)
    panda.tick(home, wait=wait, stamp=panda.now + max(wait, 1))
    assert panda.state.mode == mode


def test_missed_time_is_not_caught_up(panda, home):
    panda.run(home, 5)
    while np.abs(panda.state.velocity[6]) < 1.0:
        panda.tick(home + np.eye(7)[6] * -2)
    before, speed = panda.position, np.abs(panda.state.velocity).max()
    panda.tick(home + np.eye(7)[6] * -2, wait=90 * MS)
    assert np.abs(panda.position - before).max() < 1.2 * speed * 0.004
    assert panda.checker.violations() == []


# ---------------------------------------------------------------- modes


def test_nothing_is_sent_while_disarmed(limits, at, home):
    state, decision = step(limits, SafetyState(), Command(home, home, 1), at(home, 1), 1)
    assert decision.send is None
    assert state.mode == Mode.DISARMED


def test_hold_latches_until_armed_again(panda, home):
    panda.run(home + 0.05, 400)
    panda.state = hold(panda.state, "asked")
    panda.run(home, 100)
    assert panda.state.reason == "asked"
    assert hold(panda.state, "other").reason == "asked"
    panda.state = arm(panda.limits, panda.state, panda.at(panda.position, panda.now), panda.now)
    panda.run(home, 400)
    assert panda.state.mode == Mode.RUN
    assert np.allclose(panda.position, home)
    assert panda.checker.violations() == []


def test_stop_latches_until_disarmed(panda, home):
    panda.run(home, 5)
    panda.state = stop(panda.state, "button")
    panda.run(home + 0.1, 50)
    assert panda.position.tolist() == home.tolist()
    assert stop(panda.state, "other").reason == "button"
    assert hold(panda.state, "other").mode == Mode.STOP
    with pytest.raises(HardwareError, match="stopped"):
        arm(panda.limits, panda.state, panda.at(home, panda.now), panda.now)
    assert disarm(panda.state).mode == Mode.DISARMED


def test_stop_before_arming_sends_nothing(limits, at, home):
    state = stop(SafetyState(), "button")
    assert step(limits, state, Command(home, home, 1), at(home, 1), 1)[1].send is None
    assert hold(SafetyState(), "x").mode == Mode.DISARMED


def test_arming_and_disarming_need_rest(panda, home):
    with pytest.raises(HardwareError, match="armed"):
        arm(panda.limits, panda.state, panda.at(home, panda.now), panda.now)
    with pytest.raises(HardwareError, match="moves"):
        disarm(panda.state)
    panda.run(home, 5)
    panda.run(home + 0.2, 60)
    panda.state = hold(panda.state, "asked")
    panda.tick()
    for change in (disarm, lambda state: arm(panda.limits, state, panda.at(panda.position, panda.now), panda.now)):
        with pytest.raises(HardwareError):
            change(panda.state)


def test_arming_far_from_the_held_command_is_refused(panda, home, at):
    panda.state = hold(panda.state, "asked")
    with pytest.raises(HardwareError, match="not where"):
        arm(panda.limits, panda.state, at(home + 0.21, panda.now), panda.now)
    assert arm(panda.limits, panda.state, at(home + 0.19, panda.now), panda.now).position.tolist() == home.tolist()


@pytest.mark.parametrize("joint", range(7))
def test_arming_outside_the_joint_limits_is_refused(limits, at, home, joint):
    pose = home.copy()
    pose[joint] = limits.high_rad[joint] + 0.001
    with pytest.raises(HardwareError, match="joint limits"):
        arm(limits, SafetyState(), at(pose, 0), 0)
    pose[joint] = limits.low_rad[joint] - 0.001
    with pytest.raises(HardwareError, match="joint limits"):
        arm(limits, SafetyState(), at(pose, 0), 0)


def test_arming_outside_the_workspace_is_refused(at, home):
    from robolearn.hardware.limits import SafetyConfig, limits_of
    from robolearn.robots.panda import PANDA

    for box in ({"workspace_high_m": (0.1, 0.9, 1.3)}, {"workspace_low_m": (0.8, -0.9, -0.1)}):
        with pytest.raises(HardwareError, match="workspace"):
            arm(limits_of(PANDA, 250.0, SafetyConfig(**box)), SafetyState(), at(home, 0), 0)


def test_arming_on_a_stale_state_is_refused(limits, at, home):
    with pytest.raises(HardwareError, match="trusted"):
        arm(limits, SafetyState(), at(home, 0), 200 * MS)


# ---------------------------------------------------------------- fuzz


def fuzz(panda, home, ticks, seed):
    """Targets of every bad kind, mixed with reasonable ones; returns how many were armed again."""
    draw = np.random.default_rng(seed)
    aim, rearmed, violations = home.copy(), 0, []
    for _ in range(ticks):
        kind = draw.integers(0, 20)
        if kind == 0:
            aim = draw.uniform(-4, 4, 7)
        if kind == 1:
            aim = home + draw.normal(0, 0.3, 7)
        target, velocity, stamp, wait = aim + draw.normal(0, 0.002, 7), np.zeros(7), None, PERIOD
        if kind == 2:
            velocity = draw.normal(0, 10, 7)
        elif kind == 3:
            target = np.where(draw.random(7) < 0.3, draw.choice([np.nan, np.inf, -np.inf, 1e300]), target)
        elif kind == 4:
            target = np.zeros(draw.integers(0, 12))
        elif kind == 5:
            stamp = panda.now + PERIOD - int(draw.integers(-60, 200)) * MS
        elif kind == 6:
            wait = int(draw.integers(0, 150)) * MS
        elif kind == 7:
            target = draw.uniform(-1, 1, 7) * 10.0 ** draw.integers(-3, 9)
        panda.tick(None if kind == 8 else target, velocity, stamp, wait=wait)
        if panda.state.mode == Mode.HOLD and at_rest(panda.state):
            panda.state = arm(panda.limits, panda.state, panda.at(panda.position, panda.now), panda.now)
            aim, rearmed = panda.position.copy(), rearmed + 1
        if len(panda.checker.sent) > 5000:
            violations += panda.checker.violations()
            panda.checker.sent = panda.checker.sent[-4:]
    return rearmed, violations + panda.checker.violations()


def test_fuzzed_targets_never_break_a_limit_at_a_thousand_hertz(checker, at, home):
    """At 250 Hz the acceleration limits leave the jerk limits little to do; here those bind."""
    panda = Arm(limits_of(PANDA, 1000.0), checker(0.001), at, home)
    panda.period = MS
    draw, aim = np.random.default_rng(0), home
    for tick in range(2500):
        if tick % 100 == 99:
            aim = home + draw.normal(0, 0.25, 7)
        panda.tick(aim + draw.normal(0, 0.002, 7))
    assert panda.state.mode == Mode.RUN
    jerk = np.abs(np.diff(panda.checker.sent, 3, axis=0)).max(0) / 0.001**3
    assert (jerk > 0.5 * panda.limits.jerk_rad_s3).all()
    assert panda.checker.violations() == []


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_targets_never_break_a_limit(panda, home, seed):
    rearmed, violations = fuzz(panda, home, 2500, seed)
    assert violations == []
    assert rearmed > 3
    assert {"limited", "position", "not_finite", "shape", "late", "order", "starved", "stall"} <= set(panda.events)
