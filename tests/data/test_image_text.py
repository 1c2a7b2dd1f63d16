"""Pairs of pictures and text: read in two layouts, refused by name, and members of a mixture that have no actions."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch

from robolearn.api import open_dataset
from robolearn.data.commands import info, stats, verify
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.mixture import build_mixture_windows, describe
from robolearn.data.mixture import open_dataset as open_mixture
from robolearn.data.normalize_each import NormalizeEach
from robolearn.data.windows import build_windows
from robolearn.errors import DataError, RobolearnError
from robolearn.loading import open_training_data
from robolearn.policies.codecs import FASTTokens
from robolearn.run import parse_run
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline
from robolearn.transforms.normalize import Normalize

FRONT, STATE = "observation.images.front", "observation.state"
ROBOT = Spec(
    {
        STATE: Feature("signal", (3,)),
        FRONT: Feature("image", (8, 12, 3), "uint8"),
        "task": Feature("text", dtype="str"),
    },
    ActionSpec(2, "joint_position"),
    rate_hz=20.0,
    robot="arm",
)


def paint(path, colour, size=(8, 12)):
    """Write a picture of one RGB colour as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), colour[::-1], np.uint8))


def write_pairs(folder, count=3, **columns):
    """Write `count` red pictures, brighter and brighter, with their metadata."""
    for number in range(count):
        paint(folder / f"pictures/{number}.png", (50 * number, 0, 0))
    names = {"prompt": "prompt", "answer": "answer"} | columns
    rows = [
        {"file_name": f"pictures/{n}.png", names["prompt"]: "What colour is it?", names["answer"]: f"red {n}", "id": n}
        for n in range(count)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pairs in `pairs`, and a robot's dataset of 5 and 7 frames with a text column `reasoning` in `robot`."""
    root = tmp_path_factory.mktemp("image_text")
    write_pairs(root / "pairs")
    draw = np.random.default_rng(0)
    with LeRobotWriter(root / "robot", ROBOT, WriterOptions(images="image")) as writer:
        for length in (5, 7):
            for step in range(length):
                frame = {STATE: draw.normal(7, 1, 3), "action": draw.normal(-4, 2, 2), "task": "lift"}
                picture = np.full((8, 12, 3), step, np.uint8)
                writer.add_frame(
                    {**frame, FRONT: picture, "reasoning": f"step {step}", "next.reward": np.float32(step)}
                )
            writer.save_episode()
    return root


def members(**more):
    """Return a mixture's options: the pairs first, so that the order is no excuse."""
    return {"members": {"pairs": {"path": "pairs", **more}, "robot": {"path": "robot"}}}


def test_each_pair_is_an_episode_of_one_frame(folder):
    source = open_dataset(folder / "pairs")  # kind auto
    assert source.lengths.tolist() == [1, 1, 1]
    assert source.spec.observations[FRONT].shape == (8, 12, 3)
    assert source.spec.action.dim == 0
    frame = source.read(2, [FRONT, "task", "reasoning", "action", "frame_index"])
    assert (frame[FRONT] == np.array([100, 0, 0])).all()
    assert (frame["task"].tolist(), frame["reasoning"].tolist()) == (["What colour is it?"], ["red 2"])
    assert frame["action"].shape == (1, 0)
    assert source.read(1, [FRONT, "task"], 1)[FRONT].shape == (0, 8, 12, 3)
    with pytest.raises(DataError, match="did you mean 'reasoning'"):
        source.read(0, ["reasonin"])
    windows = build_windows(source, 2, 4, [FRONT, "task"])
    assert windows.gather(np.arange(3))[FRONT].shape == (3, 2, 8, 12, 3)


def test_columns_names_and_sizes_are_options(tmp_path):
    write_pairs(tmp_path, prompt="question", answer="caption")
    paint(tmp_path / "pictures/1.png", (0, 90, 0), (16, 30))
    options = {"prompt": "question", "answer": "caption", "reasoning": "why", "picture": "observation.images.wrist"}
    with pytest.raises(DataError, match=r"differ in size(.|\n)*1\.png \(16, 30\)(.|\n)*image_px"):
        open_dataset(tmp_path, "image_text", options)
    source = open_dataset(tmp_path, "image_text", {**options, "image_px": [4, 4]})
    frame = source.read(1, ["observation.images.wrist", "why"])
    assert (frame["observation.images.wrist"] == np.array([0, 90, 0])).all()
    assert frame["observation.images.wrist"].shape == (1, 4, 4, 3)
    assert frame["why"].tolist() == ["red 1"]


def test_llavas_layout(tmp_path):
    paint(tmp_path / "coco/a.png", (1, 2, 3))
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A cat."), ("human", "Sure?"), ("gpt", "Yes.")]
    items = [{"id": "a", "image": "coco/a.png", "conversations": [{"from": w, "value": v} for w, v in turns]}]
    (tmp_path / "llava.json").write_text(json.dumps(items))
    frame = open_dataset(tmp_path / "llava.json", "image_text").read(0, ["task", "reasoning", FRONT])
    assert (frame["task"].tolist(), frame["reasoning"].tolist()) == (["What is it?"], ["A cat."])
    assert (frame[FRONT] == np.array([1, 2, 3])).all()
    for wrong in ({}, [{"image": "coco/a.png"}], [{**items[0], "conversations": [{"from": ["human"], "value": 3}]}]):
        (tmp_path / "llava.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"llava\.json"):
            open_dataset(tmp_path / "llava.json", "image_text")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": None}, r"metadata\.jsonl, row 1 has no 'prompt'"),
        ({"answer": "  "}, r"row 1 has no 'answer'(.|\n)*found: '  '"),
        ({"file_name": 3}, "row 1 has no 'file_name'"),
        ({"file_name": "pictures/none.png"}, r"not there(.|\n)*pictures/none\.png"),
        ({"file_name": "../pairs.png"}, "leaves its folder"),
        ({"file_name": "/etc/hostname"}, "leaves its folder"),
    ],
)
def test_bad_rows_are_refused_by_name(tmp_path, row, message):
    write_pairs(tmp_path / "pairs")
    paint(tmp_path / "pairs.png", (9, 9, 9))
    good = {"file_name": "pictures/0.png", "prompt": "What?", "answer": "red"}
    lines = [good, {key: value for key, value in (good | row).items() if value is not None}]
    (tmp_path / "pairs/metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "pairs")


def test_what_is_missing_or_damaged_is_said(tmp_path):
    with pytest.raises(DataError, match=r"metadata\.jsonl does not exist(.|\n)*file_name"):
        open_dataset(tmp_path, "image_text")
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(DataError, match="lists no pictures"):
        open_dataset(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(DataError, match="not readable"):
        open_dataset(tmp_path)
    write_pairs(tmp_path)
    whole = (tmp_path / "pictures/1.png").read_bytes()
    (tmp_path / "pictures/1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1\.png is (not a PNG or JPEG|a damaged) picture(.|\n)*do: "):
        open_dataset(tmp_path, "image_text", {"image_px": [4, 4]}).read(1, [FRONT])
    (tmp_path / "pictures/1.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"1\.png is not a PNG or JPEG"):
        open_dataset(tmp_path)
    with pytest.raises(RobolearnError, match="one pixel"):
        open_dataset(tmp_path, "image_text", {"image_px": [0, 4]})


def test_a_line_separator_inside_a_text_is_text(tmp_path):
    write_pairs(tmp_path, 1)
    row = {"file_name": "pictures/0.png", "prompt": "one\u2028two", "answer": "three"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert open_dataset(tmp_path).read(0, ["task"])["task"].tolist() == ["one\u2028two"]


def test_the_verbs_take_pairs(folder):
    assert info({"path": str(folder / "pairs")})["kind"] == "image_text"
    assert verify({"path": str(folder / "pairs")})["good"]
    assert stats({"path": str(folder / "pairs")})["action"]["mean"] == []
    told = describe({"path": str(folder), **members()})
    assert told["members"]["pairs"]["action_dim"] == 0
    assert told["members"]["pairs"]["lacks"] == [STATE]


@pytest.mark.parametrize("loader", ["windows", "stream"])
def test_a_mixture_marks_what_pairs_lack(folder, loader):
    mixture = open_mixture(folder, members(weight=0.4) | {"loader": loader})
    alone = open_mixture(folder, {"members": {"robot": {"path": "robot"}}})
    # Stills state nothing of the robot: neither its rate nor what its action means.
    assert (mixture.spec.rate_hz, mixture.spec.robot, mixture.spec.action) == (20.0, "arm", alone.spec.action)
    assert mixture.spec.observations == alone.spec.observations
    windows = pickle.loads(pickle.dumps(build_mixture_windows(mixture, 1, 4)))
    batch = windows.gather(np.arange(len(windows)))
    pairs = batch["dataset_index"] == 0
    assert pairs.any()
    assert torch.equal(batch["action_is_pad"].all(1), pairs)
    assert torch.equal(batch["action_dim_is_pad"].all(1), pairs)
    assert torch.equal(batch[f"{STATE}_is_pad"], pairs)
    assert not batch["action"][pairs].any()
    assert not batch[STATE][pairs].any()
    assert batch[FRONT][pairs].any()


def test_a_mixture_passes_text_that_is_no_observation(folder):
    mixture = open_mixture(folder, members())
    assert mixture.texts == ("reasoning",)  # rewards are no text
    assert "reasoning" in mixture.keys
    assert "reasoning" not in mixture.spec.observations
    said = [mixture.read(episode, ["reasoning"])["reasoning"].tolist() for episode in (1, 3)]
    assert said == [["red 1"], [f"step {n}" for n in range(5)]]
    silent = open_mixture(folder, members(options={"reasoning": "said"}))
    assert silent.read(0, ["reasoning", "said"])["reasoning"].tolist() == [""]
    assert silent.read(3, ["said"], 1, 3)["said"].tolist() == ["", ""]
    with pytest.raises(DataError, match=r"No 'next\.reward' in the mixture"):
        mixture.read(3, ["next.reward"])


def test_a_member_renames_its_picture(folder):
    options = members(rename={"observation.images.web": FRONT})
    mixture = open_mixture(folder, options)
    assert {"observation.images.web", FRONT} <= set(mixture.spec.observations)
    frame = mixture.read(2, ["observation.images.web", FRONT])
    assert frame["observation.images.web"].any()
    assert not frame[FRONT].any()


@pytest.mark.parametrize("weight", [0.01, 0.5, 20.0])
def test_statistics_are_those_without_pairs(folder, weight):
    """To the bit, whatever the share of the pairs: they have no statistics, and repeat nobody's."""

    def fit(transforms, options):
        source = open_mixture(folder, options)
        windows = build_mixture_windows(source, 1, 4, [STATE])
        return Pipeline(transforms).bind(windows.spec).fit(windows.to_fit, batch_size=5).to_plain()[1]

    robot = {"path": "robot", "weight": 1.0}
    both = {"members": {"pairs": {"path": "pairs", "weight": weight}, "robot": robot}}
    for transforms in ((Normalize({"*": "mean_std"}), FASTTokens()), (Normalize({"*": "quantile"}),)):
        given, wanted = fit(transforms, both), fit(transforms, {"members": {"robot": robot}})
        assert given.keys() == wanted.keys()
        assert all(torch.equal(given[key], wanted[key]) for key in wanted)
    given, wanted = (fit((NormalizeEach(),), options) for options in (both, {"members": {"robot": robot}}))
    for key, value in given.items():
        assert torch.equal(value[1], wanted[key][0]), key
        assert (value[0] == (1 if key.endswith("scale") else 0)).all(), key


def test_the_robot_is_deployed_whoever_comes_first(folder):
    spec = open_mixture(folder, members()).spec
    assert NormalizeEach().bind(spec).deploy == "robot"
    with pytest.raises(RobolearnError, match="no member 'pairs'"):
        NormalizeEach(deploy="pairs").bind(spec)


def test_pairs_that_would_teach_nothing_are_refused(folder):
    def opened(kind, path, loader, options):
        data = {"path": str(path), "kind": kind, "loader": loader, "options": options}
        return open_training_data(parse_run({"policy": {"name": "regression", "chunk": 4}, "data": data}))

    with pytest.raises(DataError, match=r"no actions(.|\n)*data=mixture"):
        opened("image_text", folder / "pairs", "windows", {})
    with pytest.raises(DataError, match=r"no actions(.|\n)*\(web\)"):
        opened("mixture", folder, "mixture", {"members": {"web": {"path": "pairs"}}})
    with pytest.raises(DataError, match=r"found: pairs, (.|\n)*policy\.reasoning\.key"):
        opened("mixture", folder, "mixture", members())
