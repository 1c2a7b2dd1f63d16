"""The executor on a simulated clock: chunks by time, splices, latency, starvation, freezes."""

import subprocess
import sys

import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.hardware.executor import STATUS, Executor, ExecutorConfig, run, states_ring, status_ring
from robolearn.hardware.ring import Ring
from robolearn.hardware.safety import Mode

MS = 1_000_000
DT, K = 0.02, 32


class Bench:
    """An executor, its robot, and a policy that answers `latency` after its observation."""

    def __init__(self, limits, make_arm, home, width, blend_s):
        self.now, self.due = 10_000 * MS, []
        self.start = self.now
        self.chunks, self.status = Ring.create((K, width)), status_ring()
        self.robot = make_arm(home, lambda: self.now)
        self.executor = Executor(limits, self.robot, self.chunks, ExecutorConfig(DT, blend_s), self.status)

    def arm(self):
        self.executor.request("arm", self.now)

    def ask(self, reference, latency=0.0, spoil=None):
        times = 1e-9 * (self.now - self.start) + DT * np.arange(K)
        chunk = np.array([reference(t) for t in times])
        self.due.append((self.now + round(1e9 * latency), self.now, chunk if spoil is None else spoil(chunk)))

    def tick(self, wait=4 * MS):
        self.now += wait
        for item in [item for item in self.due if item[0] <= self.now]:
            self.chunks.write(item[1], item[2])
            self.due.remove(item)
        return self.executor.tick(self.now)

    def seconds(self):
        return 1e-9 * (self.now - self.start)

    def close(self):
        self.chunks.remove()
        self.status.remove()


@pytest.fixture
def bench(limits, following_arm, home):
    made = []

    def make(width=7, blend_s=0.1):
        made.append(Bench(limits, following_arm, home, width, blend_s))
        return made[-1]

    yield make
    for each in made:
        each.close()


def sway(home, amplitude=0.15, hz=0.2):
    return lambda t: home + amplitude * (1 - np.cos(2 * np.pi * hz * t)) * np.array([1, 0.5, 1, 0.5, 1, 0.5, 1])


def play(bench, reference, seconds, latency=0.0, every=25):
    lag = []
    for i in range(round(seconds * 250)):
        if i % every == 0:
            bench.ask(reference, latency)
        decision = bench.tick()
        lag.append(np.abs(decision.send[:7] - reference(bench.seconds())[:7]).max())
    return np.array(lag)


def sequence(bench, home):
    return [home] * 4 + [row[:7] for row in bench.robot.sent]


@pytest.mark.parametrize("latency", [0.0, 0.1, 0.2, 0.4])
def test_motion_follows_time_at_any_latency(bench, home, checker, latency):
    setup = bench()
    setup.arm()
    lag = play(setup, sway(home), 6.0, latency)
    assert np.median(lag[500:]) < 1e-4
    assert lag[500:].max() < 2e-3
    check = checker()
    check.sent = sequence(setup, home)
    assert check.violations() == []
    assert setup.executor.state.mode == Mode.RUN


@pytest.mark.parametrize("latency", [0.1, 0.3])
def test_splices_of_disagreeing_chunks_are_smooth(bench, home, checker, latency):
    draw = np.random.default_rng(0)
    setup = bench()
    setup.arm()
    base = sway(home)
    for i in range(1250):
        if i % 25 == 0:
            offset = draw.normal(0, 0.01, 7)
            setup.ask(lambda t, offset=offset: base(t) + offset, latency)
        setup.tick()
    check = checker()
    check.sent = sequence(setup, home)
    assert check.violations() == []
    assert setup.executor.state.mode == Mode.RUN


def test_blending_lowers_the_jerk_of_splices(bench, home):
    jerk = {}
    for blend_s in (0.0, 0.1):
        draw = np.random.default_rng(0)
        setup = bench(blend_s=blend_s)
        setup.arm()
        for i in range(1000):
            if i % 50 == 0:
                offset = draw.normal(0, 0.002, 7)
                setup.ask(lambda t, offset=offset: home + offset, 0.0)  # far from any limit
            setup.tick()
        jerk[blend_s] = np.abs(np.diff(np.array(setup.robot.sent)[250:], 3, axis=0)).max()
    assert jerk[0.1] < 0.15 * jerk[0.0]


def test_a_chunk_that_comes_while_another_fades_in_is_smooth_too(bench, home):
    draw = np.random.default_rng(0)
    setup = bench(blend_s=0.2)
    setup.arm()
    for i in range(1000):
        if i % 20 == 0:  # every 80 ms
            offset = draw.normal(0, 0.002, 7)
            setup.ask(lambda t, offset=offset: home + offset, 0.0)
        setup.tick()
    jerk = np.abs(np.diff(np.array(setup.robot.sent)[250:], 3, axis=0)).max() / 0.004**3
    assert jerk < 2 * 60 * 3 * 2 * 0.002 / 0.2**3  # 60 d / T^3 of one quintic, with room for rates that go on


def test_starvation_decelerates_then_latches(bench, home, checker):
    setup = bench()
    setup.arm()
    reference = lambda t: home + np.array([0, 0, 0, 0, 0, 0, -0.3]) * t  # noqa: E731
    play(setup, reference, 1.0)
    for _ in range(300):
        setup.tick()
    assert (setup.executor.state.mode, setup.executor.state.reason) == (Mode.HOLD, "command_age")
    q = np.array(setup.robot.sent)
    end = round((0.9 + (K - 1) * DT) * 250)  # ticks until the last chunk runs out
    assert np.abs(np.diff(q[end - 5 : end], axis=0)).max() > 1e-3 * 0.9
    assert np.abs(np.diff(q[end + 25 :], axis=0)).max() == 0  # at rest within 100 ms
    check = checker()
    check.sent = sequence(setup, home)
    assert check.violations() == []


def with_a_nan(chunk):
    return np.where(np.arange(chunk.size).reshape(chunk.shape) == 40, np.nan, chunk)


def test_a_chunk_with_one_nan_is_refused_whole(bench, home):
    setup = bench()
    setup.arm()
    play(setup, sway(home), 1.0)
    setup.ask(sway(home), spoil=with_a_nan)
    lag = [np.abs(setup.tick().send - sway(home)(setup.seconds())).max() for _ in range(50)]
    assert setup.executor.counts["chunk_not_finite"] == 1
    assert max(lag) < 1e-3
    assert setup.executor.state.mode == Mode.RUN


def test_stale_future_and_reordered_chunks_are_refused(bench, home):
    setup = bench()
    setup.arm()
    play(setup, sway(home), 0.5)
    hold = np.tile(home, (K, 1)) + 0.5
    for event, stamp in (
        ("chunk_stale", setup.now - 1001 * MS),
        ("chunk_future", setup.now + 50 * MS),
        ("chunk_order", setup.executor._start_ns),
    ):
        setup.chunks.write(stamp, hold)
        before = setup.robot.position
        setup.tick()
        assert setup.executor.counts[event] == 1
        assert np.abs(setup.robot.position - before).max() < 1e-3


def test_what_was_read_and_sent_is_handed_on(bench, home):
    setup = bench()
    states = states_ring(7)
    executor = Executor(setup.executor.limits, setup.robot, setup.chunks, setup.executor.config, None, states)
    executor.tick(setup.now)
    disarmed = states.latest().values
    executor.request("arm", setup.now)
    setup.chunks.write(setup.now, np.tile(home + 0.1, (K, 1)))
    for _ in range(20):
        setup.now += 4 * MS
        executor.tick(setup.now)
    moving = states.latest().values
    states.remove()
    assert disarmed[2, :7].tolist() == disarmed[0, :7].tolist() == home.tolist()
    assert moving[0, :7].tolist() == setup.robot.sent[-2].tolist()  # read before it is sent
    assert moving[2, :7].tolist() == setup.robot.sent[-1].tolist() != setup.robot.sent[-2].tolist()


def test_chunks_from_before_arming_are_forgotten(bench, home):
    setup = bench()
    setup.chunks.write(setup.now, np.tile(home + 0.1, (K, 1)))
    setup.arm()
    for _ in range(20):
        setup.tick()
    assert setup.robot.position.tolist() == home.tolist()
    assert setup.executor.state.mode == Mode.RAMP_IN


@pytest.mark.parametrize("freeze_ms", [20, 60, 500])
def test_a_freeze_never_makes_a_step(bench, home, checker, freeze_ms):
    setup = bench()
    setup.arm()
    play(setup, sway(home), 1.5)
    before = setup.robot.position
    speed = np.abs(setup.executor.state.velocity).max()
    setup.ask(sway(home))
    setup.tick(freeze_ms * MS)
    assert np.abs(setup.robot.position - before).max() <= speed * 0.004 + 20 * 0.004**2
    assert setup.executor.state.mode == (Mode.HOLD if freeze_ms > 100 else Mode.RUN)
    for _ in range(100):
        setup.tick()
    check = checker()
    check.sent = sequence(setup, home)
    assert check.violations() == []


def test_a_lost_robot_holds(bench, home):
    setup = bench()
    setup.arm()
    play(setup, sway(home), 0.5)
    setup.robot.lost = True
    setup.tick()
    assert (setup.executor.state.mode, setup.executor.state.reason) == (Mode.HOLD, "state_age")


def test_the_gripper_moves_at_its_speed_and_within_its_width(bench, home):
    setup = bench(width=8)
    setup.arm()
    reference = lambda t: np.append(home, -1.0 if t < 2 else 9.0)  # noqa: E731
    play(setup, reference, 4.0)
    assert np.shape(setup.robot.sent) == (len(setup.robot.sent), 8)
    widths = np.array(setup.robot.sent)[:, 7]
    assert widths.min() == 0.0
    assert widths[-1] == 0.08
    assert np.abs(np.diff(widths)).max() <= 0.1 * 0.004 * 1.001


def test_actions_of_another_arm_are_refused(limits, following_arm, home):
    chunks = Ring.create((K, 6))
    with pytest.raises(HardwareError, match="do not fit the arm"):
        Executor(limits, following_arm(home, lambda: 0), chunks, ExecutorConfig(DT))
    chunks.remove()


def test_unknown_requests_are_refused(bench):
    setup = bench()
    with pytest.raises(HardwareError, match="Unknown request"):
        setup.executor.request("go", 0)


def test_stop_and_disarm(bench, home):
    setup = bench()
    setup.arm()
    play(setup, sway(home), 0.5)
    setup.executor.request("stop", setup.now)
    for _ in range(100):
        setup.tick()
    with pytest.raises(HardwareError, match="stopped"):
        setup.executor.request("arm", setup.now)
    setup.executor.request("disarm", setup.now)
    assert setup.tick().send is None


def test_status_is_published(bench, home):
    setup = bench()
    setup.arm()
    play(setup, sway(home), 0.4)
    record = setup.status.latest()
    status = dict(zip(STATUS, record.values[0], strict=True))
    assert status["ticks"] == 100
    assert status["chunks"] == 4
    assert list(Mode)[int(status["mode"])] == Mode.RUN


def test_the_loop_never_catches_up():
    """A simulated clock whose 11th sleep lasts half a second: the schedule moves, no burst of ticks follows."""
    now, ticks, sleeps = [0], [], [0]

    class Counting:
        limits = type("L", (), {"period_s": 0.004})
        missed, late_ns = 0, 0

        def tick(self, now_ns):
            ticks.append(now_ns)

    def sleep(seconds):
        sleeps[0] += 1
        now[0] += round(1e9 * seconds) + (500 * MS if sleeps[0] == 11 else 100_000)

    executor = Counting()
    run(executor, lambda now_ns: len(ticks) < 40, sleep, lambda: now[0])
    gaps = np.diff(ticks) / MS
    assert executor.missed == 125
    assert sorted(set(gaps.round(1)))[0] >= 3.9
    assert np.median(gaps) == pytest.approx(4.0, abs=0.01)
    assert gaps.max() > 500


# ---------------------------------------------------------------- ring


def test_ring_hands_over_records(tmp_path):
    ring = Ring.create((2, 3), slots=4)
    other = Ring.open(ring.path)
    assert other.latest() is None
    for i in range(1, 8):
        assert ring.write(i * 10, np.full((2, 3), float(i))) == i
    record = other.latest()
    assert (record.number, record.stamp_ns, record.values[0, 0]) == (7, 70, 7.0)
    assert [each.number for each in other.since(0)] == [6, 7]
    assert [each.number for each in other.since(6)] == [7]
    with pytest.raises(HardwareError, match="shape"):
        ring.write(0, np.zeros((3, 2)))
    other.close()
    ring.remove()
    assert not ring.path.exists()


def test_a_writer_that_dies_half_way_publishes_nothing():
    ring = Ring.create((1, 2), slots=4)
    ring.write(1, np.ones((1, 2)))
    ring._values[2] = np.nan  # the next slot, head not advanced
    assert ring.latest().values.tolist() == [[1.0, 1.0]]
    ring.remove()


def test_a_file_that_is_no_ring_is_refused(tmp_path):
    path = tmp_path / "x"
    for content in (b"\0" * 4096, b"rlring01" + b"\xff" * 4088):
        path.write_bytes(content)
        with pytest.raises(HardwareError, match="not a ring"):
            Ring.open(path)


def test_the_newest_record_is_read():
    ring = Ring.create((2, 1), slots=4)
    assert ring.latest() is None
    for number in range(1, 7):
        ring.write(number, np.full((2, 1), float(number)))
        assert ring.latest().number == number
    ring.remove()


def test_records_are_never_torn():
    ring = Ring.create((32, 8), slots=4)
    code = (
        "import itertools, sys, numpy as np; from robolearn.hardware.ring import Ring\n"
        "ring = Ring.open(sys.argv[1])\n"
        "for i in itertools.count(1): ring.write(i, np.full((32, 8), float(i)))"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(ring.path)])
    try:
        seen: set[int] = set()
        while len(seen) < 1000:
            assert writer.poll() is None
            record = ring.latest()
            if record is not None:
                assert (record.values == record.number).all()
                assert record.stamp_ns == record.number
                seen.add(record.number)
    finally:
        writer.kill()
        writer.wait()
    ring.remove()
