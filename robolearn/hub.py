"""Checkpoints and datasets to and from the hub, with a card; a target that is a path is a plain folder.

`user/name` means the Hugging Face hub; `./name`, `/name` and `file:///name` mean a folder, for a
shared disk or a test.
"""

import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from robolearn.errors import DataError, MissingLibraryError, RobolearnError
from robolearn.files import read_json, written_aside

__all__ = ["card", "folder_kind", "pull", "push"]

Kind = Literal["model", "dataset"]
_STATE = "training_state"


def push(folder: Path, target: str, private: bool = True) -> str:
    """Copy the checkpoint (or a run's newest) or dataset `folder` to `target` with a card; returns where it is.

    A card (README.md) that the folder has already is kept; the state for resuming stays behind.
    Raises `DataError` when the folder is neither or a local target exists, `CheckpointError` when
    a checkpoint is damaged.
    """
    folder = _checkpoint_of(folder)
    kind = folder_kind(folder)
    _verify(folder, kind)
    local = _local(target)
    if local is None:
        return _upload(folder, target, kind, private)
    if local.exists():
        raise DataError(f"{local} exists already.", expected="a new folder: nothing is overwritten", do="pick another")
    text = card(folder)
    with _staged(local) as staged:
        shutil.copytree(folder, staged, ignore=shutil.ignore_patterns(_STATE))
        if not (staged / "README.md").exists():
            (staged / "README.md").write_text(text)
    return str(local)


def pull(source: str, folder: Path, revision: str | None = None, kind: Kind = "model") -> Path:
    """Fetch `source` into the new folder `folder` and return it; a checkpoint is verified first."""
    if folder.exists():
        raise DataError(f"{folder} exists already.", expected="a new folder: nothing is overwritten", do="pick another")
    local = _local(source)
    if local is not None and not local.is_dir():
        raise DataError(f"There is no folder {local}.", expected="a folder, or user/name on the hub")
    with _staged(folder) as staged:
        if local is None:
            _download(source, staged, revision, kind)
        else:
            folder_kind(local)  # an error names it, not the copy
            shutil.copytree(local, staged)
        _verify(staged, folder_kind(staged))
    return folder


@contextmanager
def _staged(folder: Path) -> Generator[Path]:
    """Yield a place to copy to, which becomes `folder` (`written_aside`); raises `DataError` where that fails."""
    try:
        with written_aside(folder) as staged:
            yield staged
    except shutil.Error as error:  # of each file; the first says it
        raise DataError(f"{folder} cannot be written.", found=error.args[0][0][2]) from error


def folder_kind(folder: Path) -> Kind:
    """Return whether `folder` is a checkpoint ("model") or a LeRobot dataset ("dataset")."""
    if (folder / "meta" / "info.json").is_file():
        return "dataset"
    if (folder / "spec.json").is_file() and any(folder.glob("*.safetensors")):
        return "model"
    raise DataError(
        f"{folder} is neither a checkpoint nor a LeRobot dataset.",
        found=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        if folder.is_dir()
        else "no such folder",
        expected="spec.json with *.safetensors, or meta/info.json",
    )


def card(folder: Path) -> str:
    """Return the model or dataset card (Markdown with YAML front matter) of `folder`."""
    if folder_kind(folder) == "dataset":
        return _dataset_card(folder.name, _read(folder / "meta" / "info.json"))
    return _model_card(folder)


def _checkpoint_of(folder: Path) -> Path:
    if not (folder / "checkpoints").is_dir():
        return folder
    from robolearn.checkpoint import find

    return find(folder)


def _verify(folder: Path, kind: Kind) -> None:
    if kind == "model":
        from robolearn.checkpoint import verify  # imports torch

        verify(folder, model_only=True)


def _dataset_card(name: str, info: Mapping[str, Any]) -> str:
    features = info.get("features", {})
    rows = "\n".join(
        f"| `{key}` | {feature.get('dtype')} | {tuple(feature.get('shape', ()))} |" for key, feature in features.items()
    )
    return (
        "---\nlicense: apache-2.0\ntask_categories:\n- robotics\ntags:\n- LeRobot\n- robolearn\n---\n\n"
        f"# {name}\n\n{info.get('total_episodes', '?')} episodes, {info.get('total_frames', '?')} frames at "
        f"{info.get('fps', '?')} Hz, robot {info.get('robot_type') or 'not stated'}, LeRobot format "
        f"{info.get('codebase_version', '?')}.\n\n| feature | dtype | shape |\n|---|---|---|\n{rows}\n\n"
        f"```python\nimport robolearn\n\nepisodes = robolearn.open_dataset({name!r})\n```\n"
    )


def _model_card(folder: Path) -> str:
    spec = _read(folder / "spec.json")
    config = _read(folder / "config.json") if (folder / "config.json").is_file() else {}
    policy = config.get("policy", config).get("name", "policy")
    observations = "\n".join(
        f"| `{key}` | {feature.get('kind')} | {tuple(feature.get('shape', ()))} | {feature.get('unit', '')} |"
        for key, feature in spec.get("observations", {}).items()
    )
    action = spec.get("action", {})
    return (
        "---\nlicense: apache-2.0\nlibrary_name: robolearn\npipeline_tag: robotics\ntags:\n- robolearn\n---\n\n"
        f"# {folder.name}\n\nA `{policy}` policy: {action.get('dim', '?')} action entries "
        f"({action.get('kind') or 'kind not stated'}) in chunks of {spec.get('chunk', '?')} at "
        f"{spec.get('rate_hz', '?')} Hz, from a history of {spec.get('history', '?')}.\n\n"
        f"| observation | kind | shape | unit |\n|---|---|---|---|\n{observations}\n\n"
        f"{_results(folder)}```python\nimport robolearn\n\nactor = robolearn.load({folder.name!r})\n```\n"
    )


def _results(folder: Path) -> str:
    places = (folder, *folder.resolve().parents[:2])  # of a checkpoint, its run's
    found = next((path for place in places if (path := place / "result.json").is_file()), None)
    result = _read(found) if found else {}
    if "success_rate" not in result:
        return "No evaluation is recorded beside these weights.\n\n"
    interval = f"[{result['ci_low']:.1%}, {result['ci_high']:.1%}]"
    return f"Success {result['success_rate']:.1%}, 95 % {interval}, over {result['episodes']} episodes.\n\n"


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path, DataError)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a mapping.", found=type(content).__name__)
    return content


def _local(target: str) -> Path | None:
    if target.startswith("file://"):
        return Path(urlsplit(target).path)
    return Path(target).expanduser() if target.startswith((".", "/", "~")) else None


def _upload(folder: Path, target: str, kind: Kind, private: bool) -> str:
    hub = _hub()
    api = hub.HfApi()
    try:
        address = api.create_repo(target, repo_type=kind, private=private, exist_ok=True)
        if not (folder / "README.md").exists():
            text = card(folder).encode()
            api.upload_file(path_or_fileobj=text, path_in_repo="README.md", repo_id=target, repo_type=kind)
        api.upload_folder(folder_path=folder, repo_id=target, repo_type=kind, ignore_patterns=[f"{_STATE}/*"])
    except (OSError, ValueError) as error:
        raise _unreachable(target, error) from error
    return str(address)


def _download(source: str, folder: Path, revision: str | None, kind: Kind) -> None:
    try:
        _hub().snapshot_download(source, repo_type=kind, revision=revision, local_dir=folder)
    except (OSError, ValueError) as error:
        raise _unreachable(source, error) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _unreachable(name: str, error: Exception) -> RobolearnError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RobolearnError(
        f"The hub did not serve '{name}'.",
        found=reason,
        expected="a network, an existing name, and a login for private ones",
        do="hf auth login; or use a folder: ./NAME",
    )


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            "The hub needs the library 'huggingface_hub'.", found="not installed", do="pip install 'robolearn[vla]'"
        ) from error
    return huggingface_hub
