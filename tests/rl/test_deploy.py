"""Policies that correct every step, where chunks are executed: the rollout and the server."""

import numpy as np

from robolearn.plan import Execution
from robolearn.rollout import PolicyController
from robolearn.serve.server import ServerConfig, _Session
from robolearn.spec import ActionSpec, Feature, Spec


class Corrects:
    """Chunks count decisions and steps; a correction adds what is seen now."""

    def __init__(self):
        self.spec = Spec({"observation.state": Feature(shape=(1,))}, ActionSpec(1), 10.0, history=1, chunk=6)
        self.noise_shape, self.decisions = (0,), 0

    def act(self, obs, noise, prefix=None):
        self.decisions += 1
        chunk = 10.0 * self.decisions + np.arange(6.0)
        return np.tile(chunk[:, None], (len(noise), 1, 1))

    def correct(self, obs, action):
        return action + 100 * obs["observation.state"][:, -1]


def _obs(value, rows=1):
    return {"observation.state": np.full((rows, 1), float(value))}


def test_a_rollout_corrects_every_action_from_the_newest_observation():
    actor = Corrects()
    controller = PolicyController(actor, 2, Execution(3), 0)
    controller.begin(np.arange(2), np.arange(2), _obs(0, 2))
    active = np.array([True, False])
    found = [float(controller.act(_obs(step, 2), active)[0, 0]) for step in range(5)]
    assert found == [10.0, 111.0, 212.0, 320.0, 421.0]
    window, running = controller.outlook(np.array([0]), _obs(7, 2))
    assert window["observation.state"][0, -1] == 7.0
    assert running[0, 0] == 22.0  # the clone's chunk goes on, uncorrected


def test_a_server_answers_with_one_corrected_action_a_request():
    actor = Corrects()
    session = _Session(actor, None, seed=0, episode=0, config=ServerConfig(execute=3))
    replies = [session.infer({"observation.state": np.full((1, 1, 1), float(step))})["actions"] for step in range(5)]
    assert [reply.shape for reply in replies] == [(1, 1)] * 5
    assert [float(reply[0, 0]) for reply in replies] == [10.0, 111.0, 212.0, 320.0, 421.0]
