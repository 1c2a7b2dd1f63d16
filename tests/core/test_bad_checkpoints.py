"""Hostile and damaged checkpoints and configs: one error of ours each, at once, and nothing executes."""

import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robolearn import checkpoint
from robolearn.files import plain_json, sha256

FIXTURE = Path(__file__).parent.parent / "fixtures" / "checkpoint_schema_1"
MODEL, CONFIG, STATS = "model.safetensors", "config.json", "stats.safetensors"
OPTIMIZER = "training_state/optimizer.safetensors"
Change = Callable[[Path], None]


class Payload:
    """Touches a file when it is unpickled."""

    marker = "/tmp/robolearn-payload-ran"

    def __reduce__(self):
        return (Path(self.marker).touch, ())


def seal(folder: Path) -> None:
    """Write a manifest that fits the files, so that only what they hold can be refused."""
    manifest = json.loads((folder / "manifest.json").read_text())
    content = {key: value for key, value in manifest.items() if key != "digest"}
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    content["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
        if name != "manifest.json"
    }
    (folder / "manifest.json").write_bytes(plain_json({**content, "digest": checkpoint._digest(content)}))


def replaced(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def edited(name: str, edit: Callable) -> Change:
    def change(folder: Path) -> None:
        plain = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(edit(plain)))

    return change


def retensored(name: str, edit: Callable[[dict], dict]) -> Change:
    def change(folder: Path) -> None:
        save_file(edit(load_file(folder / name)), folder / name)

    return change


def rebytes(name: str, edit: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


def header(content: dict | bytes, data: bytes = b"\0" * 64, size: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(dtype: str = "F32", shape: tuple = (2,), start: int = 0, stop: int = 8) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def _torch_file(folder: Path) -> None:
    torch.save({"payload": Payload()}, folder / MODEL)


def _legacy_torch_file(folder: Path) -> None:
    torch.save({"payload": Payload()}, folder / MODEL, _use_new_zipfile_serialization=False)


def _bare_pickle_beside(folder: Path) -> None:
    (folder / MODEL).unlink()
    (folder / "model.pt").write_bytes(pickle.dumps(Payload()))


def _first(edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], dict]:
    def change(tensors: dict) -> dict:
        name = next(key for key, value in sorted(tensors.items()) if value.is_floating_point() and value.numel() > 1)
        return {**tensors, name: edit(tensors[name]).contiguous()}

    return change


def _spoilt(value: float, dtype: torch.dtype | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(given: torch.Tensor) -> torch.Tensor:
        result = given.clone().to(dtype or given.dtype)
        result.view(-1)[-1] = value
        return result

    return change


def _set(*path_and_value):
    *path, value = path_and_value

    def edit(plain):
        at = plain
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return plain

    return edit


NAN, INF = float("nan"), float("inf")
PICKLE = pickle.dumps(Payload())
LOAD: dict[str, dict[str, Change]] = {
    "21 pickle": {
        "model": replaced(MODEL, PICKLE),
        "torch zip": _torch_file,
        "torch legacy": _legacy_torch_file,
        "stats": replaced(STATS, PICKLE),
        "config": replaced(CONFIG, PICKLE),
        "transforms": replaced("transforms.json", PICKLE),
        "spec": replaced("spec.json", pickle.dumps(Payload(), protocol=0)),
        "beside": _bare_pickle_beside,
        "manifest": replaced("manifest.json", PICKLE),
    },
    "22 safetensors": {
        "empty": replaced(MODEL, b""),
        "cut": rebytes(MODEL, lambda content: content[:-5]),
        "trailing bytes": rebytes(MODEL, lambda content: content + b"\0" * 8),
        "huge header": replaced(MODEL, header(b"{}", size=1 << 62)),
        "header is no JSON": replaced(MODEL, header(b"[" * 64)),
        "overlap": replaced(MODEL, header({"a": tensor(), "b": tensor(start=4, stop=12)}, b"\0" * 12)),
        "hole": replaced(MODEL, header({"a": tensor(), "b": tensor(start=16, stop=24)}, b"\0" * 24)),
        "beyond the end": replaced(MODEL, header({"a": tensor(stop=1 << 40, shape=(1 << 38,))})),
        "size unlike shape": replaced(MODEL, header({"a": tensor(shape=(3,))}, b"\0" * 8)),
        "overflow": replaced(MODEL, header({"a": tensor(shape=(1 << 40, 1 << 40))}, b"\0" * 8)),
        "negative": replaced(MODEL, header({"a": tensor(shape=(-2,))}, b"\0" * 8)),
        "unknown dtype": replaced(MODEL, header({"a": tensor(dtype="O8")}, b"\0" * 8)),
        "stats cut": rebytes(STATS, lambda content: content[:20]),
    },
    "23 not finite": {
        "nan": retensored(MODEL, _first(_spoilt(NAN))),
        "inf": retensored(MODEL, _first(_spoilt(INF))),
        "minus inf": retensored(MODEL, _first(_spoilt(-INF))),
        "nan in bf16": retensored(MODEL, _first(_spoilt(NAN, torch.bfloat16))),
        "nan in f64": retensored(MODEL, _first(_spoilt(NAN, torch.float64))),
        "nan in fp16": retensored(MODEL, _first(_spoilt(NAN, torch.float16))),
        "all nan": retensored(MODEL, lambda t: {key: torch.full_like(value, NAN) for key, value in t.items()}),
        "nan statistic": retensored(STATS, lambda t: {**t, "1/action/mean": torch.full((2,), NAN)}),
        "inf statistic": retensored(STATS, lambda t: {**t, "1/observation.state/std": torch.full((3,), INF)}),
    },
    "24 shapes and keys": {
        "missing": retensored(MODEL, lambda t: dict(list(t.items())[1:])),
        "unexpected": retensored(MODEL, lambda t: {**t, "more.weight": torch.zeros(2)}),
        "renamed": retensored(MODEL, lambda t: {f"module.{key}": value for key, value in t.items()}),
        "wider": retensored(MODEL, _first(lambda value: torch.cat([value, value]))),
        "flat": retensored(MODEL, lambda t: {key: value.flatten()[None] for key, value in t.items()}),
        "other type": retensored(MODEL, _first(lambda value: value.double())),
        "none": retensored(MODEL, lambda t: {}),
        "statistic missing": retensored(STATS, lambda t: {k: v for k, v in t.items() if k != "1/action/mean"}),
        "statistic of another shape": retensored(STATS, lambda t: {**t, "1/action/mean": torch.zeros(5)}),
        "statistic of no transform": retensored(STATS, lambda t: {**t, "9/action/mean": torch.zeros(2)}),
        "spec of another width": edited("spec.json", _set("observations", "observation.state", "shape", [4])),
    },
    "25 class paths": {
        "module and class": edited(CONFIG, _set("policy", "name", "robolearn.policies.flow:FlowConfig")),
        "dotted": edited(CONFIG, _set("policy", "name", "os.system")),
        "colon": edited(CONFIG, _set("policy", "name", "os:system")),
        "target": edited(CONFIG, _set("policy", {"_target_": "os.system", "command": "true"})),
        "target beside": edited(CONFIG, _set("policy", "_target_", "os.system")),
        "list": edited(CONFIG, _set("policy", "name", ["flow"])),
        "nothing": edited(CONFIG, lambda plain: {}),
        "network": edited(CONFIG, _set("policy", "network", "name", "torch.nn:Linear")),
        "path": edited(CONFIG, _set("policy", "name", "../../../flow")),
        "misspelt": edited(CONFIG, _set("policy", "name", "flwo")),
        "no mapping": replaced(CONFIG, b"[]"),
    },
    "26 transforms by path": {
        "module and class": edited("transforms.json", _set(0, "name", "robolearn.transforms.actions:RelativeAction")),
        "system": edited("transforms.json", _set(0, {"name": "os:system", "command": "true"})),
        "target": edited("transforms.json", _set(0, {"_target_": "os.system"})),
        "target beside": edited("transforms.json", _set(0, "_target_", "os.system")),
        "a function": edited("transforms.json", _set(0, "name", "eval")),
        "no list": edited("transforms.json", lambda plain: {"transforms": plain}),
        "strings": edited("transforms.json", lambda plain: ["relative_action"]),
        "statistics inline": edited("transforms.json", _set(1, "stats", {"action/mean": [0.0, 0.0]})),
        "encoder by path": edited("transforms.json", _set(0, {"name": "embed_text", "encoder": "os:system"})),
        "entry outside": edited("transforms.json", _set(0, "entries", [[99, 0]])),
        "names left": edited("transforms.json", _set(0, "entries", [["x", "y"]])),
    },
    "27 plain data": {
        "yaml tag": replaced(CONFIG, b"!!python/object/apply:os.system ['true']\n"),
        "yaml aliases": replaced(CONFIG, b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        "duplicate key": replaced(CONFIG, b'{"policy": {"name": "flow", "name": "regression"}}'),
        "unknown key": edited(CONFIG, _set("policy", "chnk", 4)),
        "deep": replaced(CONFIG, b"[" * 60_000 + b"]" * 60_000),
        "deep but legal": replaced(CONFIG, b"[" * 200 + b"]" * 200),
        "not a number": replaced(CONFIG, b'{"policy": {"name": "flow", "chunk": NaN}}'),
        "infinite": replaced("spec.json", b'{"rate_hz": 1e999}'),
        "not text": replaced(CONFIG, b"\xff\xfe\x00"),
        "empty": replaced(CONFIG, b""),
        "wrong type": edited(CONFIG, _set("policy", "chunk", "four")),
        "spec key": edited("spec.json", _set("chnk", 4)),
        "rate": edited("spec.json", _set("rate_hz", 0)),
    },
    "files outside": {
        "parent": lambda folder: _listed(folder, "../outside.bin"),
        "root": lambda folder: _listed(folder, "/etc/hostname"),
        "link": lambda folder: (folder / MODEL).unlink() or (folder / MODEL).symlink_to("/etc/hostname"),
    },
}
STATE: dict[str, dict[str, Change]] = {
    "training state": {
        "pickle": replaced(OPTIMIZER, PICKLE),
        "cut": rebytes(OPTIMIZER, lambda content: content[:-3]),
        "nan": retensored(OPTIMIZER, _first(_spoilt(NAN))),
        "nan weights": retensored("training_state/weights.safetensors", _first(_spoilt(NAN))),
        "inf average": retensored("training_state/ema.safetensors", _first(_spoilt(INF))),
        "other step": edited("training_state/state.json", _set("step", 8)),
        "no step": replaced("training_state/state.json", b"{}"),
        "counters": replaced("training_state/state.json", b'{"step": 7, "counters": {"a": 1, "a": 2}}'),
        "gone": lambda folder: (folder / OPTIMIZER).unlink(),
    }
}
RUNS = {
    "duplicate": b'{"policy": {"name": "flow"}, "policy": {"name": "flow"}, "data": {"path": "x"}}',
    "unknown section": b'{"policy": {"name": "flow"}, "data": {"path": "x"}, "trian": {}}',
    "unknown option": b'{"policy": {"name": "flow"}, "data": {"path": "x"}, "train": {"step": 3}}',
    "unknown policy": b'{"policy": {"name": "flwo"}, "data": {"path": "x"}}',
    "class path": b'{"policy": {"name": "robolearn.policies.flow:FlowConfig"}, "data": {"path": "x"}}',
    "no data": b'{"policy": {"name": "flow"}}',
    "yaml": b"policy: !!python/name:os.system\n",
    "out of range": b'{"policy": {"name": "flow"}, "data": {"path": "x"}, "train": {"batch_size": 0}}',
    "indivisible": b'{"policy": {"name": "flow"}, "data": {"path": "x"}, "train": {"batch_size": 9, "accumulate": 2}}',
}


def _listed(folder: Path, name: str) -> None:
    """List a file outside the folder, with its true size and hash where it exists."""
    outside = folder / name
    if name.startswith(".."):
        outside.write_bytes(b"outside")
    manifest = json.loads((folder / "manifest.json").read_text())
    content = {key: value for key, value in manifest.items() if key != "digest"}
    content["files"][name] = {"bytes": outside.stat().st_size, "sha256": sha256(outside)}
    (folder / "manifest.json").write_bytes(plain_json({**content, "digest": checkpoint._digest(content)}))


def _cases(root: Path, whole: Path) -> dict[str, tuple[str, Path]]:
    """Write every case below `root` and return its verb and path by name."""
    cases: dict[str, tuple[str, Path]] = {}
    for verb, table in (("load", LOAD), ("resume", STATE)):
        for kind, variants in table.items():
            for name, change in variants.items():
                folder = root / f"{kind} {name}".replace(" ", "_") / "checkpoint"
                shutil.copytree(whole, folder)
                change(folder)
                if kind != "files outside" and name not in ("manifest", "gone"):
                    seal(folder)
                cases[f"{kind}: {name}"] = (verb, folder)
    for name, content in RUNS.items():
        path = root / f"run_{name.replace(' ', '_')}.json"
        path.write_bytes(content)
        cases[f"run: {name}"] = ("run", path)
    return cases


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Everything loaded by one process under the audit hook."""
    root = tmp_path_factory.mktemp("bad")
    whole = root / "whole"
    found = checkpoint.load(FIXTURE)
    moments = {"exp_avg/a": torch.ones(3), "exp_avg_sq/a": torch.ones(3), "step/a": torch.ones(())}
    state = checkpoint.TrainingState(found.step, found.weights, moments, found.weights, {"windows": 1})
    checkpoint.save(whole, found, state)
    Path(Payload.marker).unlink(missing_ok=True)
    cases = _cases(root, whole)
    cases["whole"], cases["whole resume"] = ("load", whole), ("resume", whole)
    orders = json.dumps([str(FIXTURE), str(root), [[verb, str(path)] for verb, path in cases.values()]])
    script = Path(__file__).parent / "oracle.py"
    done = subprocess.run([sys.executable, str(script)], input=orders, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout), strict=True))


def test_each_kind_has_seven_variants():
    assert all(len(variants) >= 7 for kind, variants in {**LOAD, **STATE}.items() if kind[0].isdigit())


def test_the_whole_one_loads_without_an_event(answers):
    for name in ("whole", "whole resume"):
        assert answers[name]["error"] is None, answers[name]
        assert not answers[name]["seen"]


def test_every_bad_one_is_an_error_of_ours(answers):
    wrong = {name: answer for name, answer in answers.items() if not name.startswith("whole") and not answer["ours"]}
    assert not wrong


def test_every_error_says_what_was_found_or_expected(answers):
    for name, answer in answers.items():
        if not name.startswith("whole"):
            assert "found:" in answer["text"] or "expected:" in answer["text"] or "do:" in answer["text"], name


def test_nothing_is_executed_opened_or_connected(answers):
    assert {name: answer["seen"] for name, answer in answers.items() if answer["seen"]} == {}
    assert not Path(Payload.marker).exists()


def test_misspelt_keys_and_names_are_suggested(answers):
    for name in ("25 class paths: misspelt", "27 plain data: unknown key", "27 plain data: spec key"):
        assert "did you mean" in answers[name]["text"]
    for name in ("unknown section", "unknown option", "unknown policy"):
        assert "did you mean" in answers[f"run: {name}"]["text"]
