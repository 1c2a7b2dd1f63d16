"""Published VLA checkpoints by our own names: SmolVLA, π0 and π0.5, OpenVLA, and the head of OpenVLA-OFT.

The structures are ours already, so a checkpoint is a table of names and a few exact folds: flow time runs the
other way there, SmolVLA scales what it embeds, and Gemma's norms add one to their weights. Padding of states is
cut off; padding of actions is part of the flow and stays.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robolearn import checkpoint
from robolearn.config import parse, to_dict
from robolearn.contracts import Transform
from robolearn.errors import CheckpointError
from robolearn.files import read_json
from robolearn.nets.backbones import BackboneConfig, vocabulary_of
from robolearn.policies.vla.policy import VLAConfig
from robolearn.policies.vla.statistics import read_lerobot_stats, read_oxe_stats, read_tensors
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

__all__ = [
    "convert",
    "convert_lerobot",
    "convert_openvla",
    "fit_weights",
    "oft_head_weights",
    "pi0_weights",
    "smolvla_weights",
]

# The expert's layers: published → ours.
_LAYER = {
    "self_attn.q_proj.weight": "query.weight",
    "self_attn.k_proj.weight": "key.weight",
    "self_attn.v_proj.weight": "value.weight",
    "self_attn.o_proj.weight": "output.weight",
    "mlp.gate_proj.weight": "gate.weight",
    "mlp.up_proj.weight": "up.weight",
    "mlp.down_proj.weight": "down.weight",
    "input_layernorm.weight": "norm.scale",
    "post_attention_layernorm.weight": "feed_norm.scale",
    "input_layernorm.dense.weight": "norm.modulate.weight",
    "input_layernorm.dense.bias": "norm.modulate.bias",
    "post_attention_layernorm.dense.weight": "feed_norm.modulate.weight",
    "post_attention_layernorm.dense.bias": "feed_norm.modulate.bias",
}
_FLOW = {
    "action_in_proj": "head.expert.inputs",
    "action_out_proj": "head.expert.outputs",
    "action_time_mlp_in": "head.expert.mix.0",
    "action_time_mlp_out": "head.expert.mix.2",
    "time_mlp_in": "head.expert.mix.0",
    "time_mlp_out": "head.expert.mix.2",
}
_SMOLVLA = re.compile(r"vlm_with_expert\.(vlm|lm_expert)\.(.+)")
_PI0 = re.compile(r"paligemma_with_expert\.(paligemma|gemma_expert\.model|gemma_expert)\.(.+)")


def smolvla_weights(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return SmolVLA's weights (arXiv 2506.01844, LeRobot's names) by our names.

    What it multiplies embeddings of pictures and words by, the root of their width, is folded into the weights.
    """
    result = {}
    for key, value in _bare(given):
        found = _SMOLVLA.fullmatch(key)
        if found is None:
            result[_flow_name(key, "state")] = -value if key.startswith("action_out_proj") else value
        elif found[1] == "lm_expert":
            result[f"head.expert.{_expert_name(found[2])}"] = value
        elif found[2] != "lm_head.weight":
            result[f"backbone.vlm.{found[2]}"] = value * _scale(found[2], value)
    return result


def pi0_weights(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of π0 (arXiv 2410.24164) or π0.5 (arXiv 2504.16054), openpi's PyTorch names, by ours."""
    result = {}
    for key, value in _bare(given):
        found = _PI0.fullmatch(key)
        if found is None:
            result[_flow_name(key, "head.state")] = -value if key.startswith("action_out_proj") else value
        elif found[1] == "gemma_expert.model":
            name = _expert_name(found[2])
            result[f"head.expert.{name}"] = 1 + value if name.endswith("scale") else value
        elif found[1] == "paligemma" and found[2] == "lm_head.weight":
            result.setdefault("backbone.vlm.model.language_model.embed_tokens.weight", value)
        elif found[1] == "paligemma":
            result[f"backbone.vlm.{found[2]}"] = value
    return result


def oft_head_weights(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of OpenVLA-OFT's L1 head (arXiv 2502.19645) by the names of `L1Head`.

    Its queries are zeros: what OFT puts where the actions are asked for has no embedding of its own.
    """
    ours = {"layer_norm1": "norms.0", "layer_norm2": "norms.1", "fc1": "inputs", "fc2": "outputs"}
    result = {}
    for key, value in given.items():
        name = key.removeprefix("module.").removeprefix("model.")
        block = re.fullmatch(r"mlp_resnet_blocks\.(\d+)\.ffn\.(.+)", name)
        module, _, rest = name.partition(".")
        result[f"residuals.{block[1]}.{block[2]}" if block else f"{ours.get(module, module)}.{rest}"] = value
    return result


def fit_weights(module: nn.Module, given: Mapping[str, Tensor], where: str = "The weights") -> dict[str, Tensor]:
    """Return `given` as the whole state of `module`, in float32, states cut to what the module reads.

    Raises `CheckpointError` listing each missing, unexpected and misshapen key.
    """
    own = module.state_dict()
    constant = {name for name in own if name.endswith("time.frequencies")}
    problems = [f"missing {name}" for name in own if name not in given and name not in constant]
    problems += [f"unexpected {name}" for name in given if name not in own]
    state = {}
    for name, value in own.items():
        if name not in given:
            state[name] = value
            continue
        found = given[name].float()
        if name.endswith("state.weight") and found.ndim == 2:
            found = found[:, : value.shape[1]]  # the rest is multiplied by padding
        if found.shape != value.shape:
            problems.append(f"another shape {name}: {tuple(found.shape)}, not {tuple(value.shape)}")
        state[name] = found.contiguous()
    if problems:
        raise CheckpointError(f"{where} do not fit.", found="; ".join(problems), expected="exactly the policy's keys")
    return state


def convert(folder: str | Path, out: str | Path, rate_hz: float, backbone: str = "", unnorm_key: str = "") -> Path:
    """Write the published policy in `folder` as our checkpoint `out`: see the functions for each kind.

    LeRobot's need the folder of their `backbone`, OpenVLA the data set `unnorm_key` whose actions it is to give.
    """
    plain: Any = read_json(Path(folder) / "config.json", CheckpointError)
    if isinstance(plain, Mapping) and plain.get("model_type") == "openvla":
        return convert_openvla(folder, out, unnorm_key, rate_hz)
    return convert_lerobot(folder, out, backbone, rate_hz)


def convert_openvla(folder: str | Path, out: str | Path, unnorm_key: str, rate_hz: float, blank: int = 29871) -> Path:
    """Write OpenVLA (arXiv 2406.09246) as our checkpoint `out`, with the actions of the data set `unnorm_key`.

    `blank` is the token that it puts between prompt and actions. Its instructions were in lower case.
    """
    folder = Path(folder)
    theirs: Any = read_json(folder / "config.json", CheckpointError)
    stats = read_oxe_stats(folder / "config.json", unnorm_key)
    options = {key: theirs[key] for key in ("timm", "patch_size", "image_sizes", "text_config") if key in theirs}
    bins = theirs.get("n_action_bins", 256)
    # The vocabulary was filled up to a multiple; the actions are the last of what was there before.
    first = vocabulary_of(BackboneConfig("openvla", options)) - theirs.get("pad_to_multiple_of", 64) - bins
    head = {"name": "tokens", "tokenizer": {"name": "bins", "vocabulary": bins}, "first": first}
    plain = {
        "name": "vla",
        "chunk": 1,
        "backbone": {"name": "openvla", "options": options},
        "head": head,
        "state": "none",
        "attention": "causal",
        "action_norm": "quantile",
        "prompt": {"template": "In: What action should the robot take to {text}?\nOut:", "tokenizer": str(folder)},
    }
    config = parse(VLAConfig, plain, where="policy")
    picture = {"observation.images.image": Feature("image", (*options["image_sizes"][:1] * 2, 3), "uint8")}
    spec = Spec({**picture, "task": Feature("text")}, ActionSpec(len(stats["action/q01"])), rate_hz)
    pipeline = _pipeline(config, spec, stats)
    policy = config.build(pipeline.transform_spec(spec))
    weights = {f"backbone.{name}": value for name, value in policy.backbone.read(folder).items()}
    words = weights["backbone.vlm.language_model.model.embed_tokens.weight"]
    state = fit_weights(policy, {**weights, "head.queries": words[blank : blank + 1]}, f"The weights in {folder}")
    return checkpoint.save(Path(out), checkpoint.Checkpoint({"policy": to_dict(config)}, spec, pipeline, state))


def convert_lerobot(folder: str | Path, out: str | Path, backbone: str | Path, rate_hz: float) -> Path:
    """Write the SmolVLA, π0 or π0.5 checkpoint that LeRobot left in `folder` as our checkpoint `out`.

    `backbone` is the folder of the vision-language model it stands on: its config.json and tokenizer.json are
    used, its weights are not. Pictures are expected at the size of the network. Raises `CheckpointError` for
    another policy, and for what of these we do not prepare alike.
    """
    folder, backbone = Path(folder), Path(backbone)
    theirs: Any = read_json(folder / "config.json", CheckpointError)
    kind = theirs.get("type", "") if isinstance(theirs, Mapping) else ""
    if kind not in _READERS:
        raise CheckpointError(
            f"{folder} holds no policy of a structure that is ours.",
            found=f"type '{kind}'",
            expected=" or ".join(_READERS),
            do="evaluate the folder itself: it then runs through LeRobot",
        )
    rename, describe = _READERS[kind]
    weights = rename(read_tensors(folder, "model*.safetensors"))
    config = parse(VLAConfig, _common(theirs, backbone) | describe(theirs, weights, backbone), where="policy")
    spec = _spec(theirs, config, rate_hz)
    wide = resolve("transform", "pad")("action", theirs["max_action_dim"])
    pipeline = _pipeline(config, spec, read_lerobot_stats(folder), wide)
    if kind == "pi05":  # the prompt is made of the normalised state
        tokens, pictures, scaled, last = pipeline.transforms
        pipeline = Pipeline((pictures, scaled, resolve("transform", "state_prompt")(), tokens, last)).bind(spec)
    policy = config.build(pipeline.transform_spec(spec))
    state = fit_weights(policy, weights, f"The weights in {folder}")
    return checkpoint.save(Path(out), checkpoint.Checkpoint({"policy": to_dict(config)}, spec, pipeline, state))


def _common(theirs: Mapping[str, Any], backbone: Path) -> dict[str, Any]:
    if theirs.get("empty_cameras") or theirs.get("use_relative_actions") or theirs.get("adapt_to_pi_aloha"):
        raise CheckpointError(
            "This policy prepares its data in a way that is not ours.",
            found="empty_cameras, use_relative_actions or adapt_to_pi_aloha",
            do="evaluate the folder itself: it then runs through LeRobot",
        )
    template = "{text}" if theirs["type"] == "pi05" else "{text}\n"
    prompt = {"template": template, "tokenizer": str(backbone), "length": theirs["tokenizer_max_length"]}
    modes = theirs["normalization_mapping"]
    norms = {"observation_norm": _NORMS.get(modes["STATE"]), "action_norm": _NORMS.get(modes["ACTION"])}
    return {"name": "vla", "chunk": theirs["chunk_size"], "prompt": prompt, **norms}


def _smolvla(theirs: Mapping[str, Any], weights: Mapping[str, Tensor], backbone: Path) -> dict[str, Any]:
    options, every = _architecture(backbone), theirs["self_attn_every_n_layers"]
    depth = _depth(weights)
    layers = theirs["num_vlm_layers"] if theirs["num_vlm_layers"] > 0 else 0
    if theirs.get("add_image_special_tokens") or every < 1 or theirs["num_expert_layers"] not in (-1, 0, depth, layers):
        raise CheckpointError("This variant of SmolVLA is not ours.", do="evaluate the folder: it runs through LeRobot")
    # SmolVLA rotates with base 10,000, whatever its backbone was trained with.
    turn = {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    eps = options["text_config"].get("rms_norm_eps", 1e-6)
    options["text_config"] = {**options["text_config"], **turn}
    expert = {
        **_expert_sizes(weights),
        "cross_every": every if "cross" in theirs["attention_mode"] else 0,
        "causal": True,
        "eps": eps,
    }
    head = {"name": "flow", "steps": theirs["num_steps"], "expert": expert}
    return {"backbone": {"name": "smolvlm", "options": options, "layers": layers}, "head": head, "state": "prefix"}


def _pi0(theirs: Mapping[str, Any], weights: Mapping[str, Tensor], backbone: Path) -> dict[str, Any]:
    head = {
        "name": "flow",
        "steps": theirs["num_inference_steps"],
        "expert": {**_expert_sizes(weights), "activation": "gelu"},
    }
    return {"backbone": {"name": "paligemma", "options": _architecture(backbone)}, "head": head, "state": "expert"}


def _pi05(theirs: Mapping[str, Any], weights: Mapping[str, Tensor], backbone: Path) -> dict[str, Any]:
    options = _pi0(theirs, weights, backbone)
    options["head"]["expert"]["time"] = "adaln"
    return options | {"state": "none"}


_READERS = {"smolvla": (smolvla_weights, _smolvla), "pi0": (pi0_weights, _pi0), "pi05": (pi0_weights, _pi05)}
_NORMS = {"MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantile", "IDENTITY": "identity"}


def _architecture(backbone: Path) -> dict[str, Any]:
    options: Any = read_json(backbone / "config.json", CheckpointError)
    if not isinstance(options, Mapping) or "text_config" not in options:
        raise CheckpointError(f"{backbone / 'config.json'} describes no vision-language model.")
    return dict(options)


def _expert_sizes(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Return width and feed-forward width of the expert, from its weights."""
    names = ("head.expert.inputs.weight", "head.expert.layers.0.gate.weight")
    absent = [name for name in names if name not in weights]
    if absent:
        raise CheckpointError("The checkpoint has no action expert.", found=f"missing {', '.join(absent)}")
    return {"width": weights[names[0]].shape[0], "feed": weights[names[1]].shape[0]}


def _depth(weights: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("head.expert.layers.") and name.endswith("gate.weight") for name in weights)


def _spec(theirs: Mapping[str, Any], config: VLAConfig, rate_hz: float) -> Spec:
    """Return what the policy observes; its cameras must come in the order of their names, as ours do."""
    side = theirs["resize_imgs_with_padding" if theirs["type"] == "smolvla" else "image_resolution"]
    cameras = [key for key, feature in theirs["input_features"].items() if feature["type"] == "VISUAL"]
    if cameras != sorted(cameras) or not cameras:
        raise CheckpointError("The cameras have another order.", found=cameras, expected=sorted(cameras))
    signals = {
        key: Feature("signal", tuple(feature["shape"]))
        for key, feature in theirs["input_features"].items()
        if feature["type"] == "STATE"
    }
    pictures = {key: Feature("image", (*side, 3), "uint8") for key in cameras}
    action = ActionSpec(theirs["output_features"]["action"]["shape"][0])
    return Spec({**pictures, **signals, "task": Feature("text")}, action, rate_hz, 1, config.chunk)


def _pipeline(config: VLAConfig, spec: Spec, stats: Mapping[str, Tensor], *more: Transform) -> Pipeline:
    """Return the policy's transforms with published statistics and the tokenizer of the folder that it names."""
    steps: list[Any] = config.transforms(spec)
    tokens, pictures, normalize, *codec = steps
    tokens, scaled = tokens.fit(iter(())), replace(normalize.bind(spec), stats=stats)
    return Pipeline((tokens, pictures, scaled, *codec, *more)).bind(spec)


def _scale(key: str, value: Tensor) -> float:
    """Return what SmolVLA multiplies the output of an embedding by: the root of its width."""
    if key.endswith("text_model.embed_tokens.weight"):
        return value.shape[1] ** 0.5
    return value.shape[0] ** 0.5 if key.endswith("modality_projection.proj.weight") else 1.0


def _bare(given: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights without what a policy's class puts before their names."""
    return ((key.removeprefix("model."), value) for key, value in given.items())


def _flow_name(key: str, state: str) -> str:
    module, _, rest = key.partition(".")
    return f"{({**_FLOW, 'state_proj': state}).get(module, module)}.{rest}"


def _expert_name(key: str) -> str:
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", key)
    if layer is not None:
        return f"layers.{layer[1]}.{_LAYER.get(layer[2], layer[2])}"
    return key.replace("norm.weight", "norm.scale").replace("norm.dense", "norm.modulate")
