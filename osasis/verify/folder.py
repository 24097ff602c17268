"""A folder in the golden format: ``meta.json`` and tensors, every one of which must be accounted for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from osasis.errors import OsasisError

OPTIONAL = "official"
"""The subfolder of files in the release's own formats: large, and so not everywhere."""


class FolderError(OsasisError):
    """The folder cannot be read, lacks something, or holds what cannot be computed; the message names it."""


class Settings:
    """A table of ``meta.json`` whose every key must be understood.

    Each access strikes a key off; :meth:`close` tells which are left.
    """

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, dict):
            raise FolderError(f"meta.json: {place} is missing")
        self.place = place
        self._values = dict(values)

    def take(self, name: str, *default: Any) -> Any:
        """The value; ``default`` where there is none.

        Raises:
            FolderError: missing, and there is no default.
        """
        if name in self._values:
            return self._values.pop(name)
        if default:
            return default[0]
        raise FolderError(f"meta.json: {self.place}.{name} is missing")

    def table(self, name: str) -> "Settings":
        return Settings(self.take(name, None), f"{self.place}.{name}")

    def expect(self, name: str, *values: Any) -> None:
        """A setting of which only ``values`` can be computed; the first is the default.

        Raises:
            FolderError: another value.
        """
        found = self.take(name, values[0])
        if found not in values:
            possible = " or ".join(map(repr, values))
            raise FolderError(f"meta.json: {self.place}.{name} is {found!r}, which cannot be computed; only {possible}")

    def ignore(self, *names: str) -> None:
        """Settings that change no number."""
        for name in names:
            self._values.pop(name, None)

    def close(self) -> list[str]:
        """Keys that were never read."""
        return [f"{self.place}.{name}" for name in self._values]


class Tensors:
    """The tensors of one file. Each must be used by a comparison: :meth:`unused` names those that were not."""

    def __init__(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.name = name
        self._tensors = tensors
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise FolderError(f"{self.name}: {name} is missing")
        self._used.add(name)
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def under(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin so, without the prefix."""
        return {name.removeprefix(prefix): self[name] for name in self._tensors if name.startswith(prefix)}

    def unused(self) -> list[str]:
        return sorted(self._tensors.keys() - self._used)


class GoldenFolder:
    """``meta.json`` read; files are read on demand, and put onto ``device`` in ``dtype``.

    Raises:
        FolderError: no such folder, or no valid ``meta.json``.
    """

    def __init__(self, path: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.path = path
        self.device, self.dtype = device, dtype
        self._open: dict[str, Tensors] = {}
        if not path.is_dir():
            raise FolderError(f"{path} is not a folder")
        try:
            self.meta = Settings(json.loads((path / "meta.json").read_bytes()), "meta")
        except FileNotFoundError:
            raise FolderError(f"{path} is not a golden folder: it has no meta.json") from None
        except ValueError as error:
            raise FolderError(f"{path / 'meta.json'} is not valid JSON: {error}") from None

    def tensors(self, name: str) -> Tensors:
        """A file's tensors; integers as they are.

        Raises:
            FolderError: the file is missing or damaged.
        """
        if name not in self._open:
            path = self.path / name
            try:
                loaded = load_file(path)
            except FileNotFoundError:
                raise FolderError(f"{path} is missing") from None
            except (SafetensorError, OSError) as error:
                raise FolderError(f"{path} cannot be read: {error}") from None
            self._open[name] = Tensors(name, {key: self.place(tensor) for key, tensor in loaded.items()})
        return self._open[name]

    def place(self, tensor: Tensor) -> Tensor:
        """On the device, floats in the precision of the verification; float64 stays float64."""
        keep = not tensor.is_floating_point() or tensor.dtype == torch.float64
        return tensor.to(self.device, tensor.dtype if keep else self.dtype)

    def missing(self, files: list[str]) -> list[str]:
        return [name for name in files if not (self.path / name).is_file()]

    def strangers(self, known: list[str]) -> list[str]:
        """Tensor files that no comparison knows."""
        found = {str(path.relative_to(self.path)) for path in self.path.rglob("*.safetensors")}
        return sorted(found - set(known))

    def unused(self) -> list[str]:
        """Tensors that no comparison has used, as ``file: name``."""
        return [f"{tensors.name}: {name}" for tensors in self._open.values() for name in tensors.unused()]
