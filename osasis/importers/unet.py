"""A UNet's configuration, read from the names and shapes of its weights.

What tensors do not show (sizes in pixels, attention heads, the order of their channels, dropout) is given.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from osasis.errors import ForeignFile
from osasis.networks.encoder import EncoderConfig
from osasis.networks.unet import UNetConfig

Tensors = Mapping[str, Tensor]


def infer_unet(tensors: Tensors, image_size: int, **given: Any) -> UNetConfig:
    """``given``: UNetConfig fields that cannot be inferred, or override what is inferred.

    Raises:
        ForeignFile: these are not the weights of a UNet of a form that can be computed.
    """
    if "label_emb.weight" in tensors:
        raise ForeignFile("label_emb.weight: the network is conditioned on classes, which is not supported")
    emb_channels, model_channels = _shape(tensors, "time_embed.0.weight")
    blocks = _blocks(tensors, "output_blocks")
    # The first block of the upper half that ends by changing the size ends its level.
    per_level = next((i + 1 for i in range(blocks) if _goes_up(tensors, i)), blocks)
    levels = blocks // per_level
    if blocks % per_level or _blocks(tensors, "input_blocks") != levels * per_level:
        raise ForeignFile("input_blocks and output_blocks do not match: the halves have other numbers of blocks")
    first = [1 + level * per_level for level in range(levels)]  # of each level's residual blocks in input_blocks
    widths = [_shape(tensors, f"input_blocks.{i}.0.in_layers.2.weight")[0] for i in first]
    cond = tensors.get("input_blocks.1.0.cond_emb_layers.1.weight")
    time_width = _shape(tensors, "input_blocks.1.0.emb_layers.1.weight")[0]
    fields: dict[str, Any] = {
        "image_size": image_size,
        "model_channels": model_channels,
        "channel_mult": tuple(_multiplier(width, model_channels) for width in widths),
        "num_res_blocks": per_level - 1,
        "attention_resolutions": _attention(tensors, first, image_size),
        "emb_channels": emb_channels,
        "cond_channels": None if cond is None else cond.shape[1],
        "learn_sigma": _shape(tensors, "out.2.weight")[0] == 6,
        "conv_resample": any(name.endswith(".op.weight") for name in tensors),
        "add_time": time_width == widths[0],
    }
    return UNetConfig.model_validate(fields | given)


def infer_encoder(tensors: Tensors, image_size: int, *, num_res_blocks: int, **given: Any) -> EncoderConfig:
    """``num_res_blocks`` is tried first: the encoder's blocks can often be read as levels in more than one way.

    Raises:
        ForeignFile: these are not the weights of an encoder of a form that can be computed.
    """
    if "time_embed.0.weight" in tensors:
        raise ForeignFile("encoder.time_embed: the encoder is conditioned on time, which is not supported")
    blocks = _blocks(tensors, "input_blocks")
    likely = [given.pop("num_res_blocks", num_res_blocks), 2, 1, *range(3, blocks)]
    per_level = next((n + 1 for n in likely if blocks % (n + 1) == 0 and _levels_of(tensors, blocks, n + 1)), None)
    if per_level is None:
        raise ForeignFile("encoder.input_blocks: cannot be read as levels of residual blocks")
    model_channels = _shape(tensors, "input_blocks.0.0.weight")[0]
    first = [1 + i for i in range(0, blocks, per_level)]
    widths = [_shape(tensors, f"input_blocks.{i}.0.in_layers.2.weight")[0] for i in first]
    if "channel_mult" not in given:  # the first level's multiplier is not seen: it is 1 in every known encoder
        given["channel_mult"] = tuple(_multiplier(width, model_channels) for width in widths)
    else:
        model_channels = round(model_channels / given["channel_mult"][0])
    fields: dict[str, Any] = {
        "image_size": image_size,
        "model_channels": model_channels,
        "num_res_blocks": per_level - 1,
        "attention_resolutions": _attention(tensors, first, image_size),
        "out_channels": _shape(tensors, "out.3.weight")[0],
        "conv_resample": any(name.endswith(".op.weight") for name in tensors),
    }
    return EncoderConfig.model_validate(fields | given)


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise ForeignFile(f"{name} is missing")
    return tuple(tensors[name].shape)


def _blocks(tensors: Tensors, half: str) -> int:
    found = {int(match.group(1)) for name in tensors if (match := re.match(rf"{half}\.(\d+)\.", name))}
    if not found or found != set(range(len(found))):
        raise ForeignFile(f"{half} is missing or has gaps")
    return len(found)


def _goes_up(tensors: Tensors, block: int) -> bool:
    """Whether a block of the upper half has a layer after its residual block that is not attention."""
    prefix = f"output_blocks.{block}."
    return any(f"{prefix}{i}.{key}" in tensors for i in (1, 2) for key in ("conv.weight", "in_layers.2.weight"))


def _levels_of(tensors: Tensors, blocks: int, per_level: int) -> bool:
    """Whether what stands between the levels can be what changes the size: neither attention nor another width."""
    between = range(per_level, blocks, per_level)
    strange = ("1.qkv.weight", "0.skip_connection.weight")
    within = [i for i in range(1, blocks) if (i - 1) % per_level and i not in between]
    return not any(f"input_blocks.{i}.{key}" in tensors for i in between for key in strange) and not any(
        f"input_blocks.{i}.0.{key}" in tensors for i in within for key in ("skip_connection.weight", "op.weight")
    )


def _attention(tensors: Tensors, first: list[int], image_size: int) -> tuple[int, ...]:
    return tuple(image_size >> level for level, i in enumerate(first) if f"input_blocks.{i}.1.qkv.weight" in tensors)


def _multiplier(width: int, model_channels: int) -> int | float:
    return width // model_channels if width % model_channels == 0 else width / model_channels
