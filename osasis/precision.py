"""Where and how exactly networks compute: one device, one precision.

float32: weights and everything else. bf16: the UNets under autocast, weights, latents and losses in float32.
float64: everything, for checking.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16", "float64"]


def current_precision(values: Any) -> Any:
    """Settings as former versions wrote them, ``bf16: true``, under the present name; anything else as it is."""
    if isinstance(values, dict) and isinstance(values.get("bf16"), bool):
        former = "bf16" if values["bf16"] else "float32"
        return {"precision": former} | {name: value for name, value in values.items() if name != "bf16"}
    return values


def weights_dtype(precision: Precision) -> torch.dtype:
    """The type of weights, latents and losses."""
    return torch.float64 if precision == "float64" else torch.float32


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """To be entered around the call of a UNet."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def exact_float32() -> None:
    """On a GPU, products of float32 in float32: by default cuDNN takes TF32, whose errors are a thousand times larger.

    For the whole process; :func:`osasis.base.load_base`, pretraining and ``osasis.verify`` call it. Who wants speed
    chooses bf16.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def choose_device(name: str | None = None) -> torch.device:
    """The device of this name; without one, the first GPU or else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
