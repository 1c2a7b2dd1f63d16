"""Open-loop errors by hand-computed numbers, and the command over a tiny run."""

import json

import numpy as np
import pytest
import torch

from robolearn.cli import main
from robolearn.errors import DataError
from robolearn.openloop import openloop
from robolearn.run import parse_run
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.training import train

SPEC = Spec({"observation.state": Feature(shape=(1,))}, ActionSpec(dim=2, names=("a", "b")), rate_hz=10.0, chunk=3)


class Ramp:
    """Windows whose action is (i, -i) at every step; the last step of the last window is padded."""

    spec = SPEC

    def __init__(self, size=4):
        self.size = size

    def __len__(self):
        return self.size

    def gather(self, index):
        rows = torch.as_tensor(index, dtype=torch.float32)
        action = torch.stack([rows, -rows], 1)[:, None].repeat(1, 3, 1)
        pad = torch.zeros(len(index), 3, dtype=torch.bool)
        pad[rows == self.size - 1, 2] = True
        return {"observation.state": rows[:, None, None], "action": action, "action_is_pad": pad}


class Off:
    """Says what was shown plus 0.5 on the first entry."""

    spec, noise_shape = SPEC, (0,)

    def act(self, obs, noise, prefix=None):
        seen = obs["observation.state"][:, -1]
        return np.repeat(np.concatenate([seen + 0.5, -seen], 1)[:, None], 3, 1)


def test_errors_and_spread():
    found = openloop(Off(), Ramp())
    assert found.names == ("a", "b")
    assert np.allclose(found.error, [[0.5, 0.0]] * 3)
    assert np.allclose(found.spread, [[1.0, 1.0], [1.0, 1.0], [2 / 3, 2 / 3]])
    assert found.relative == pytest.approx((0.5 + 0.5 + 0.75) / 6)
    assert np.isnan(found.examples[-1][0][2]).all()


def test_a_part_of_the_windows_is_spread_over_all():
    found = openloop(Off(), Ramp(100), limit=5)
    assert found.windows == 5
    assert found.spread[0, 0] == pytest.approx(np.abs(np.array([0, 24, 49, 74, 99]) - 49.2).mean())


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(DataError, match="nothing to compare"):
        openloop(Off(), Ramp(0))


def test_the_command_leaves_plots(plain_run, tmp_path, capsys):
    config = parse_run(plain_run(steps=2, data={"validation_fraction": 0.4}))
    trained = train(config)
    command = ["eval", "openloop", f"ckpt={trained.checkpoint}", "windows=20", f"out={tmp_path / 'out'}"]
    assert main(command) == 0
    assert "held out" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "result.json").read_text())["openloop"]
    assert found["held_out"] is True
    assert found["windows"] == 20
    assert {len(error) for error in found["error"].values()} == {4}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<polyline") >= 2 * (2 + 2 * 3)
    assert main([*command[:3], "window=3"]) == 2
