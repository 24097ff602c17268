"""Checkpoint files as torch.save and torch.jit.save write them, read without running any code in them.

Both are pickles, and a pickle may name any function to be called. Of what a file names, only tensors, plain containers
and the few inert names below are ever resolved; the first other name ends the reading.
"""

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from osasis.errors import ForeignFile


class _Inert(dict[str, Any]):
    """Stands for a class of Lightning's in a checkpoint: holds what it is given, does nothing."""


_LIGHTNING = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)
"""Names that Lightning's checkpoints of several years hold: a class as a key, and a dictionary."""

_STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def read_checkpoint(path: Path) -> Any:
    """What ``torch.save`` wrote (or a safetensors file holds), on the CPU; a TorchScript archive gives its state dict.

    Raises:
        ForeignFile: there is no such file, it is of another kind, damaged, or names something that is not plain data.
    """
    if not path.is_file():
        raise ForeignFile(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ForeignFile(f"{path} is not a safetensors file: {error}") from None
    if _is_script(path):
        return _read_script(path)
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _LIGHTNING]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise _refused(path, forbidden.group(1) if forbidden else None, error) from None
    except Exception as error:  # a damaged file fails in whatever way its bytes have it
        raise ForeignFile(f"{path} cannot be read: {_first_line(error)}") from None


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """``content`` as a state dict.

    Raises:
        ForeignFile: it is none.
    """
    if not isinstance(content, dict) or not content:
        raise ForeignFile(f"{path} holds no state dict")
    strange = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise ForeignFile(f"{path} holds no state dict: {strange[0]!r} is not the name of a tensor")
    return dict(content)


def _refused(path: Path, name: str | None, error: Exception) -> ForeignFile:
    if name is None:
        return ForeignFile(f"{path} cannot be read as plain data: {_first_line(error)}")
    return ForeignFile(f"{path} is refused: it names {name}, which is not plain data; nothing of it was run")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _Module:
    """A scripted module: its attributes, without its code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _ScriptUnpickler(pickle.Unpickler):
    """The object tree of a TorchScript archive. Its code stays unread in the archive."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist"):
            return list
        raise _Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        data = self._archive.read(f"{self._root}/data/{key}")
        return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


class _Forbidden(Exception):
    pass


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():
        raise ValueError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset).clone()


def _read_script(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).rpartition("/")[0]
            module = _ScriptUnpickler(archive, root).load()
    except _Forbidden as error:
        raise _refused(path, str(error), error) from None
    except Exception as error:
        raise ForeignFile(f"{path} cannot be read: {_first_line(error)}") from None
    return dict(_flat(module))


def _flat(module: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    if not isinstance(module, _Module):
        return []
    found: list[tuple[str, Tensor]] = []
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        else:
            found += _flat(value, f"{prefix}{name}.")
    return found
