"""Our Diffusion and ACT checkpoints in LeRobot's format: the same network under LeRobot's names.

A checkpoint that LeRobot's policies cannot express is refused with the reason.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn import checkpoint
from robolearn.errors import CheckpointError
from robolearn.nets.unet1d import UNetConfig
from robolearn.nets.vision import ResNetConfig
from robolearn.policies.act import ACTConfig
from robolearn.policies.diffusion import DiffusionConfig
from robolearn.spec import Spec
from robolearn.transforms import ImageToFloat, Normalize

__all__ = ["export_lerobot"]

_MODES = {"min_max": "MIN_MAX", "quantile": "MIN_MAX", "mean_std": "MEAN_STD", "identity": "IDENTITY"}


def export_lerobot(source: str | Path, folder: str | Path) -> Path:
    """Write the checkpoint `source` as a LeRobot policy with its processors; returns `folder`.

    Raises `CheckpointError` for what LeRobot's Diffusion and ACT policies cannot express.
    """
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    found, folder = checkpoint.load(source), Path(folder)
    config, spec = found.policy_config(), found.pipeline.transform_spec(found.spec)
    _require_plain(found, spec)
    if isinstance(config, DiffusionConfig):
        kind, options, weights = "diffusion", _diffusion_options(config, spec), _diffusion_weights(found, spec)
    elif isinstance(config, ACTConfig):
        kind, options, weights = "act", _act_options(config), _act_weights(found, spec)
    else:
        raise _refusal("the policy", type(config).__name__, "diffusion or act")
    normalize = next(t for t in found.pipeline.transforms if isinstance(t, Normalize))
    made = make_policy_config(
        kind,
        **options,
        **_features(spec),
        normalization_mapping=_mapping(normalize),
        pretrained_backbone_weights=None,
        device="cpu",
        push_to_hub=False,
    )
    policy = get_policy_class(kind)(made)
    policy.load_state_dict(weights)
    policy.save_pretrained(folder)
    processors = make_pre_post_processors(made, dataset_stats=_statistics(normalize))
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def _require_plain(found: checkpoint.Checkpoint, spec: Spec) -> None:
    others = [t.name for t in found.pipeline.transforms if not isinstance(t, Normalize | ImageToFloat)]
    if others:
        raise _refusal("the transforms", ", ".join(others), "normalisation only")
    if any(isinstance(t, ImageToFloat) and t.size for t in found.pipeline.transforms):
        raise _refusal("the transforms", "images are resized", "images of their own size")
    for key, feature in spec.observations.items():
        known = key in ("observation.state", "observation.environment_state") or (
            feature.kind == "image" and key.startswith("observation.image")
        )
        if not known:
            raise _refusal("the observations", key, "observation.state, .environment_state and .images.*")
    if "observation.state" not in spec.observations:
        raise _refusal("the observations", ", ".join(spec.observations), "observation.state")


def _features(spec: Spec) -> dict[str, Any]:
    from lerobot.configs.types import FeatureType, PolicyFeature

    kinds = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
    inputs = {
        key: PolicyFeature(kinds.get(key, FeatureType.VISUAL), feature.shape)
        for key, feature in spec.observations.items()
    }
    return {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (spec.action.dim,))},
    }


def _mapping(normalize: Normalize) -> dict[str, Any]:
    from lerobot.configs.types import NormalizationMode

    names = {"observation.state": "STATE", "observation.environment_state": "ENV", "action": "ACTION"}
    modes = {names[key]: NormalizationMode[_MODES[mode]] for key, mode in normalize.modes.items()}
    return {"VISUAL": NormalizationMode.IDENTITY, **modes}


def _statistics(normalize: Normalize) -> dict[str, dict[str, Tensor]]:
    """Return statistics with which LeRobot scales as `normalize` does, constant dimensions included."""
    result = {}
    for key, mode in normalize.modes.items():
        if mode != "identity":
            centre, scale = normalize.affine(key, torch.device("cpu"))
            result[key] = {"mean": centre, "std": scale, "min": centre - scale, "max": centre + scale}
    return result


def _diffusion_options(config: DiffusionConfig, spec: Spec) -> dict[str, Any]:
    network = config.network
    if not isinstance(network, UNetConfig) or (network.groups, network.time_width, config.train_steps) != (8, 128, 100):
        raise _refusal("the network", network, "a unet with 8 groups, time_width 128 and train_steps 100")
    if config.history != 1:
        raise _refusal("the history", config.history, "1: LeRobot's chunk starts at the first frame of its history")
    if config.sampler.name not in ("ddpm", "ddim") or config.prediction == "v" or config.spline:
        raise _refusal("the objective", config.sampler.name, "ddpm or ddim, prediction epsilon or sample, no spline")
    if config.encoder.signal_width:
        raise _refusal("the encoder", config.encoder, "signal_width 0")
    if config.chunk % 2 ** len(network.channels):
        raise _refusal("the chunk", config.chunk, f"a multiple of {2 ** len(network.channels)}")
    options = {
        "n_obs_steps": 1,
        "horizon": config.chunk,
        "n_action_steps": config.chunk,
        "down_dims": network.channels,
        "kernel_size": network.kernel,
        "n_groups": network.groups,
        "use_film_scale_modulation": network.film_scale,
        "noise_scheduler_type": config.sampler.name.upper(),
        "beta_schedule": {"squaredcos": "squaredcos_cap_v2", "linear": "linear"}[config.betas],
        "prediction_type": config.prediction,
        "clip_sample": config.clip,
        "num_inference_steps": config.sampler.steps,
    }
    images = [feature.shape for feature in spec.observations.values() if feature.kind == "image"]
    if images:
        image = config.encoder.image
        if not isinstance(image, ResNetConfig) or image.pool != "spatial_softmax" or image.width != 2 * image.keypoints:
            raise _refusal("the image encoder", image, "spatial_softmax with width = 2·keypoints")
        crop = tuple(max(1, round(side * image.crop)) for side in images[0][1:])
        options |= {
            "vision_backbone": f"resnet{image.layers}",
            "use_group_norm": True,
            "crop_shape": crop if image.crop < 1 else None,
            "spatial_softmax_num_keypoints": image.keypoints,
            "use_separate_rgb_encoder_per_camera": not image.share,
        }
    return options


def _diffusion_weights(found: checkpoint.Checkpoint, spec: Spec) -> dict[str, Tensor]:
    columns = _condition_columns(spec, found.policy_config().encoder.image.width)
    share = found.policy_config().encoder.image.share
    result = {}
    for key, value in found.weights.items():
        if key in ("levels", "network.time.0.ratios"):
            continue
        if key.endswith("film.1.weight"):
            time = value.shape[1] - len(columns)
            value = torch.cat([value[:, :time], value[:, time:][:, columns]], 1)
        result[_rename(key, _IMAGE_NAMES | _UNET_NAMES, share)] = value
    return result


_IMAGE_NAMES = {
    ".pool.features.": ".pool.nets.",
    ".pool.grid": ".pool.pos_grid",
    ".outputs.0.": ".out.",
}
_UNET_NAMES = {
    "network.time.": "diffusion.unet.diffusion_step_encoder.",
    "network.down.": "diffusion.unet.down_modules.",
    "network.middle.": "diffusion.unet.mid_modules.",
    "network.up.": "diffusion.unet.up_modules.",
    "network.outputs.0.": "diffusion.unet.final_conv.0.block.",
    "network.outputs.1.": "diffusion.unet.final_conv.1.",
}
_BLOCK_NAMES = {
    "first.": "conv1.block.",
    "second.": "conv2.block.",
    "film.": "cond_encoder.",
    "skip.": "residual_conv.",
}
_LEVEL_NAMES = {"first": "0", "second": "1", "resample": "2"}


def _rename(key: str, names: Mapping[str, str], share: bool) -> str:
    if key.startswith("encoder.image."):
        _, _, number, rest = key.split(".", 3)
        inside = "." + rest
        for ours, theirs in _IMAGE_NAMES.items():
            inside = inside.replace(ours, theirs)
        return f"diffusion.rgb_encoder{'' if share else '.' + number}{inside}"
    for ours, theirs in names.items():
        if key.startswith(ours):
            rest = key.removeprefix(ours)
            if ours in ("network.down.", "network.up."):
                level, part, rest = rest.split(".", 2)
                rest = f"{level}.{_LEVEL_NAMES[part]}.{_block(rest) if part != 'resample' else rest}"
            elif ours == "network.middle.":
                number, rest = rest.split(".", 1)
                rest = f"{number}.{_block(rest)}"
            return theirs + rest
    raise CheckpointError("A weight has no place in LeRobot's policy.", found=key)


def _block(rest: str) -> str:
    name, _, tail = rest.partition(".")
    return _BLOCK_NAMES[name + "."] + tail


def _condition_columns(spec: Spec, image_width: int) -> list[int]:
    """Return where each entry of LeRobot's condition (state, images, environment state) lies in ours."""
    place, start = {}, 0
    groups = [[k for k, f in spec.observations.items() if f.kind == kind] for kind in ("signal", "image")]
    for key in [key for group in groups for key in group]:
        feature = spec.observations[key]
        size = image_width if feature.kind == "image" else feature.shape[0]
        place[key] = range(start, start + size)
        start += size
    order = ["observation.state", *groups[1], "observation.environment_state"]
    return [column for key in order if key in place for column in place[key]]


def _act_options(config: ACTConfig) -> dict[str, Any]:
    if config.history != 1 or config.backbone_norm != "frozen_batch":
        raise _refusal(
            "the policy", f"history {config.history}, backbone_norm {config.backbone_norm}", "history 1, frozen_batch"
        )
    layers, (encoder, decoder, style) = config.layers, config.depths
    return {
        "chunk_size": config.chunk,
        "n_action_steps": config.chunk,
        "vision_backbone": config.backbone,
        "dim_model": layers.width,
        "n_heads": layers.heads,
        "dim_feedforward": layers.feed_width,
        "dropout": layers.dropout,
        "n_encoder_layers": encoder,
        "n_decoder_layers": decoder,
        "n_vae_encoder_layers": style,
        "latent_dim": config.latent,
        "kl_weight": config.kl_weight,
    }


_ACT_NAMES = {
    "cells.": "encoder_img_feat_input_proj.",
    "latent.": "encoder_latent_input_proj.",
    "decoder_norm.": "decoder.norm.",
    "outputs.": "action_head.",
    "style_vectors.0.": "vae_encoder_robot_state_input_proj.",
    "style_actions.": "vae_encoder_action_input_proj.",
    "style_outputs.": "vae_encoder_latent_output_proj.",
    "style_positions": "vae_encoder_pos_enc",
    "encoder.": "encoder.layers.",
    "decoder.": "decoder.layers.",
    "style.": "vae_encoder.layers.",
}
_LAYER_NAMES = {
    ".attention.": ".self_attn.",
    ".cross.": ".multihead_attn.",
    ".feed.first.": ".linear1.",
    ".feed.second.": ".linear2.",
    ".norms.0.": ".norm1.",
    ".norms.1.": ".norm2.",
    ".norms.2.": ".norm3.",
}
_RESNET_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _act_weights(found: checkpoint.Checkpoint, spec: Spec) -> dict[str, Tensor]:
    vectors = [key for key, feature in spec.observations.items() if feature.kind != "image"]
    theirs = {
        "observation.state": "encoder_robot_state_input_proj.",
        "observation.environment_state": "encoder_env_state_input_proj.",
    }
    order = [0, *(1 + vectors.index(key) for key in theirs if key in vectors)]
    names = {f"vectors.{i}.": theirs[key] for i, key in enumerate(vectors)} | _ACT_NAMES
    result = {}
    for key, value in found.weights.items():
        if key == "places":
            result["model.encoder_1d_feature_pos_embed.weight"] = value[0, order]
        elif key == "queries":
            result["model.decoder_pos_embed.weight"] = value[0]
        elif key == "style_token":
            result["model.vae_encoder_cls_embed.weight"] = value[0]
        elif key.startswith("backbone."):
            _, number, rest = key.split(".", 2)
            result[f"model.backbone.{_RESNET_NAMES[number]}.{rest}"] = value
        else:
            ours = next(name for name in names if key.startswith(name))
            name = names[ours] + key.removeprefix(ours)
            for part, other in _LAYER_NAMES.items():
                name = name.replace(part, other)
            result[f"model.{name}"] = value
    return result


def _refusal(what: str, found: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"LeRobot's policies cannot express {what} of this checkpoint.", found=found, expected=expected
    )
