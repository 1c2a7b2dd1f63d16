"""The rollout loop against a counter environment that shows every off-by-one."""

import numpy as np
import pytest

from robolearn.contracts import VectorEnv
from robolearn.errors import ConfigError
from robolearn.plan import Execution
from robolearn.rollout import PolicyController, SmoothNoise, episode_seed, rollout, steps
from robolearn.spec import ActionSpec, Feature, Spec

SPEC = Spec({"observation.state": Feature(shape=(2,))}, ActionSpec(dim=1, low=(-1.0,), high=(1.0,)), rate_hz=10.0)


class Counter:
    """Counts its steps; episode length is 5 + seed % 4; the last step succeeds when the seed is even."""

    spec = SPEC
    max_episode_steps = 8

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.seed, self.count = np.full(num_envs, -1), np.zeros(num_envs, int)
        self.done = np.ones(num_envs, bool)
        self.received: dict[int, list[float]] = {}

    def _obs(self):
        return {"observation.state": np.stack([self.seed % 1000, self.count], 1).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        mask = options["reset_mask"]
        self.seed[mask] = [s for s, start in zip(seed, mask, strict=True) if start]
        self.count[mask], self.done[mask] = 0, False
        for value in self.seed[mask]:
            self.received[int(value)] = []
        return self._obs(), {}

    def step(self, actions):
        live = ~self.done
        for row in np.flatnonzero(live):
            self.received[int(self.seed[row])].append(float(actions[row, 0]))
        self.count += live
        over = live & (self.count == 5 + self.seed % 4)
        self.done |= over
        success = over & (self.seed % 2 == 0)
        return self._obs(), self.count.astype(float), success, over & ~success, {"success": success}

    def render(self, row=0):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        pass


class ChunkOfTimes:
    """An actor whose action i is (count when it was asked) + i, plus the noise's first entry."""

    noise_shape = (1,)

    def __init__(self, history: int = 2, chunk: int = 4, use_noise: bool = False):
        self.spec = Spec(SPEC.observations, SPEC.action, 10.0, history=history, chunk=chunk)
        self.use_noise = use_noise
        self.windows: list[np.ndarray] = []

    def act(self, obs, noise, prefix=None):
        self.windows.append(obs["observation.state"][..., 1].copy())
        first = obs["observation.state"][:, -1, 1] + (noise[:, 0] if self.use_noise else 0)
        return (first[:, None] + np.arange(self.spec.chunk))[..., None]


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_every_step_gets_the_action_of_its_own_time(rows):
    env, actor = Counter(rows), ChunkOfTimes()
    outcomes = rollout(env, PolicyController(actor, rows, Execution(3), 0), range(11), seed=4)
    assert isinstance(env, VectorEnv)
    assert [outcome.episode for outcome in outcomes] == list(range(11))
    for outcome in outcomes:
        assert outcome.seed == episode_seed(4, outcome.episode)
        assert outcome.length == 5 + outcome.seed % 4
        assert outcome.success == (outcome.seed % 2 == 0)
        assert outcome.total_reward == sum(range(1, outcome.length + 1))
        assert outcome.max_reward == outcome.length
        assert env.received[outcome.seed] == list(range(outcome.length))


def test_outcomes_and_actions_do_not_depend_on_the_number_of_rows():
    received = []
    for rows in (1, 3, 16):
        env = Counter(rows)
        rollout(env, PolicyController(ChunkOfTimes(use_noise=True), rows, Execution(2), 7), range(9), seed=7)
        received.append(env.received)
    assert received[0] == received[1] == received[2]


def test_histories_start_with_the_first_frame_and_never_mix_episodes():
    actor = ChunkOfTimes(history=3)
    rollout(Counter(1), PolicyController(actor, 1, Execution(1), 0), range(2), seed=0)
    windows = np.concatenate(actor.windows)
    starts = windows[windows[:, -1] == 0]
    assert len(starts) == 2
    assert (starts == 0).all()
    np.testing.assert_array_equal(windows[1], [0, 0, 1])
    np.testing.assert_array_equal(windows[2], [0, 1, 2])


def test_a_delayed_chunk_is_spliced_by_time_not_replayed():
    env = Counter(1)
    rollout(env, PolicyController(ChunkOfTimes(chunk=6), 1, Execution(3, 2), 0), range(4), seed=1)
    for actions in env.received.values():
        assert actions == list(range(len(actions)))


def test_a_chunk_too_short_for_the_delay_is_refused():
    with pytest.raises(ConfigError, match="execute 3, delay 2 of 4 steps"):
        PolicyController(ChunkOfTimes(chunk=4), 1, Execution(3, 2), 0)


def test_the_last_observation_is_the_one_before_the_reset():
    for record in steps(Counter(2), PolicyController(ChunkOfTimes(), 2, Execution(1), 0), range(5), seed=0):
        count, next_count = (frame["observation.state"][:, 1] for frame in (record.obs, record.next_obs))
        assert (next_count[record.active] == count[record.active] + 1).all()
        assert len(record.finished) == (record.terminated | record.truncated)[record.active].sum()


def test_disturbances_change_what_is_executed_and_not_the_label():
    env = Counter(2)
    records = list(
        steps(env, PolicyController(ChunkOfTimes(), 2, Execution(1), 0), range(4), 0, SmoothNoise(2, [0.5], seed=0))
    )
    assert all(np.array_equal(r.action[r.active, 0], r.obs["observation.state"][r.active, 1]) for r in records)
    assert all((r.executed != r.action).any() for r in records)
    again = Counter(3)
    rollout(
        again, PolicyController(ChunkOfTimes(), 3, Execution(1), 0), range(4), 0, disturbance=SmoothNoise(3, [0.5], 0)
    )
    assert again.received == env.received


def test_a_jam_is_carried_out_for_a_while_and_not_recorded():
    noise = SmoothNoise(2, [0.0, 0.0], seed=3, jam=[0.0, 0.02])
    noise.begin(np.arange(2), np.array([4, 7]))
    asked = np.full((2, 2), -1.0)
    carried_out = np.stack([noise.apply(asked) for _ in range(400)])  # [T,E,A]
    assert (asked == -1.0).all()
    assert (carried_out[..., 0] == -1.0).all()
    assert set(np.unique(carried_out[..., 1])) == {-1.0, 1.0}
    for row in range(2):
        edges = np.flatnonzero(np.diff(np.r_[-1.0, carried_out[:, row, 1], -1.0]))
        assert np.diff(edges)[:-2:2].min() >= SmoothNoise.JAM_STEPS
    alone = SmoothNoise(1, [0.0, 0.0], seed=3, jam=[0.0, 0.02])
    alone.begin(np.arange(1), np.array([7]))
    assert np.array_equal(np.stack([alone.apply(asked[:1]) for _ in range(400)])[:, 0], carried_out[:, 1])


def test_temperature_scales_the_noise_of_every_decision():
    env, cold = Counter(1), Counter(1)
    rollout(env, PolicyController(ChunkOfTimes(use_noise=True), 1, Execution(2), 7), range(3), seed=7)
    controller = PolicyController(ChunkOfTimes(use_noise=True), 1, Execution(2, temperature=0.0), 7)
    rollout(cold, controller, range(3), seed=7)
    assert all(actions == list(range(len(actions))) for actions in cold.received.values())
    assert cold.received != env.received
