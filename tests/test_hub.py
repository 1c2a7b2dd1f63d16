"""Push and pull against a local folder, with cards."""

import json

import numpy as np
import pytest
import torch

from robolearn import checkpoint
from robolearn.cli import main
from robolearn.errors import CheckpointError, DataError, RobolearnError
from robolearn.hub import card, folder_kind, pull, push
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

SPEC = Spec(
    {"observation.state": Feature(shape=(3,), unit="m")}, ActionSpec(2, kind="ee_pose"), rate_hz=20, history=2, chunk=8
)


@pytest.fixture
def model(tmp_path):
    weights = {"layer.weight": torch.ones(2, 3)}
    saved = checkpoint.Checkpoint({"policy": {"name": "flow"}}, SPEC, Pipeline(()), weights)
    (tmp_path / "result.json").write_text(
        json.dumps({"success_rate": 0.97, "ci_low": 0.91, "ci_high": 0.99, "episodes": 100})
    )
    return checkpoint.save(tmp_path / "model", saved)


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "set" / "meta").mkdir(parents=True)
    info = {"codebase_version": "v3.0", "fps": 20, "total_episodes": 7, "total_frames": 70, "robot_type": "panda"}
    info["features"] = {"action": {"dtype": "float32", "shape": [2]}}
    (tmp_path / "set" / "meta" / "info.json").write_text(json.dumps(info))
    return tmp_path / "set"


def test_a_model_goes_and_comes_back_with_its_card(model, tmp_path):
    push(model, str(tmp_path / "shelf"))
    back = pull(f"file://{tmp_path / 'shelf'}", tmp_path / "back")
    assert folder_kind(back) == "model"
    np.testing.assert_array_equal(checkpoint.load(back).weights["layer.weight"], np.ones((2, 3)))
    text = (back / "README.md").read_text()
    assert "library_name: robolearn" in text
    assert "97.0%" in text
    assert "observation.state" in text


def test_a_dataset_goes_and_comes_back_with_its_card(dataset, tmp_path):
    push(dataset, str(tmp_path / "shelf"))
    assert "7 episodes, 70 frames at 20 Hz, robot panda" in (tmp_path / "shelf" / "README.md").read_text()
    assert folder_kind(pull(str(tmp_path / "shelf"), tmp_path / "back", kind="dataset")) == "dataset"


def test_a_card_that_is_there_is_kept(dataset, tmp_path):
    (dataset / "README.md").write_text("mine")
    push(dataset, str(tmp_path / "shelf"))
    assert (tmp_path / "shelf" / "README.md").read_text() == "mine"
    assert "LeRobot" in card(dataset)


def test_nothing_is_overwritten(dataset, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="exists already"):
        push(dataset, str(tmp_path / "there"))
    with pytest.raises(DataError, match="exists already"):
        pull(str(dataset), tmp_path / "there")


def test_damage_is_found_on_both_ways(model, tmp_path):
    push(model, str(tmp_path / "shelf"))
    weights = tmp_path / "shelf" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match="damaged"):
        pull(str(tmp_path / "shelf"), tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (model / "spec.json").write_text("{}")
    with pytest.raises(CheckpointError):
        push(model, str(tmp_path / "again"))


def test_a_copy_that_failed_or_was_killed_is_made_again(model, tmp_path):
    (tmp_path / ".shelf.tmp" / "odd").mkdir(parents=True)  # of a copy that was killed
    (tmp_path / "result.json").write_text("NaN")
    with pytest.raises(DataError, match="not readable JSON"):
        push(model, str(tmp_path / "shelf"))
    (tmp_path / "result.json").write_text("{}")
    push(model, str(tmp_path / "shelf"))
    (tmp_path / ".back.tmp").mkdir()
    assert (pull(str(tmp_path / "shelf"), tmp_path / "back") / "spec.json").is_file()
    (tmp_path / "odd").mkdir()
    with pytest.raises(DataError, match="odd is neither"):
        pull(str(tmp_path / "odd"), tmp_path / "new")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_what_is_neither_is_refused(tmp_path):
    (tmp_path / "odd").mkdir()
    with pytest.raises(DataError, match="neither"):
        push(tmp_path / "odd", str(tmp_path / "shelf"))
    with pytest.raises(DataError, match="no folder"):
        pull(str(tmp_path / "absent"), tmp_path / "back")


def test_no_network_is_one_clear_error(model, monkeypatch):
    import huggingface_hub

    def offline(*arguments, **options):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(RobolearnError, match=r"did not serve 'user/name'"):
        push(model, "user/name")
    with pytest.raises(RobolearnError, match=r"did not serve 'user/name'"):
        pull("user/name", model / "new")


def test_from_the_command_line(dataset, tmp_path, capsys):
    assert main(["push", str(dataset), f"to={tmp_path / 'shelf'}"]) == 0
    assert main(["pull", str(tmp_path / "shelf"), f"to={tmp_path / 'back'}", "kind=dataset"]) == 0
    assert main(["pull", str(tmp_path / "shelf"), "too=x"]) == 2
    assert "did you mean 'to'?" in capsys.readouterr().err
