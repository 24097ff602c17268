"""Structure cache: codes of pictures (z_in and x_t0, Eq. 7) kept in storage, so that a later run starts at the decode.

Takes a batch and an encoding; gives its codes, read where they are kept, else computed and kept. Codes are rounded to
float16 either way, so that pictures do not depend on what was kept before. One file a picture, named by the sha256 of
the photograph's file; a folder for everything else that codes depend on. Trouble with the cache costs time, never a
picture.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cluster.storage import NotFound, Storage, StorageError
from jobs.streaming.encoding import Batch
from osasis.base import Base
from osasis.content import Content
from osasis.image import FitMode
from osasis.stylize import Encoding, encode

_THREADS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeepStructure:
    """Where codes are kept, and how photographs become squares."""

    place: Storage
    fit: FitMode
    decoder: int

    def folder(self, base: Base, encoding: Encoding) -> str:
        """Codes within have equal meanings."""
        values = {"format": 1, "base": base.fingerprint, "size": base.image_size, "precision": base.precision}
        values |= {"fit": self.fit, "decoder": self.decoder, "encoding": encoding._asdict()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


class KeptStructure:
    """The cache of one worker.

    Attributes:
        read, computed: pictures whose codes were kept before, and were not.
    """

    def __init__(self, base: Base, keep: KeepStructure) -> None:
        self._base, self._keep = base, keep
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="structure")
        self._writing: list[Future[None]] = []
        self._said: set[str] = set()
        self.read = self.computed = 0

    def codes(self, batch: Batch, encoding: Encoding) -> Content:
        """Of all pictures of the batch, on the base's device."""
        photos = batch.all_images
        folder = self._keep.folder(self._base, encoding)
        names = [f"{folder}/{(sha := row['input_sha256'])[:2]}/{sha[2:4]}/{sha}.safetensors" for row in batch.all_rows]
        found = [*self._pool.map(self._read, names)]
        missing = [i for i, codes in enumerate(found) if codes is None]
        self.read, self.computed = self.read + len(found) - len(missing), self.computed + len(missing)
        if missing:
            new = encode(self._base, photos[missing], encoding)
            parts = [(z.half(), x.half()) for z, x in zip(new.z_in.cpu(), new.x_t0.cpu(), strict=True)]
            self._write({names[i]: part for i, part in zip(missing, parts, strict=True)})
            for i, part in zip(missing, parts, strict=True):
                found[i] = part
        z_in, x_t0 = (torch.stack(parts) for parts in zip(*(codes for codes in found if codes), strict=True))
        return Content(photos, *(part.to(self._base.device, self._base.dtype) for part in (z_in, x_t0)))

    def finish(self) -> None:
        """Wait for what is being written."""
        for future in self._writing:
            future.result()

    def _write(self, codes: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.finish()
        self._writing = [self._pool.submit(self._store, name, *part) for name, part in codes.items()]

    def _store(self, name: str, z_in: Tensor, x_t0: Tensor) -> None:
        try:
            self._keep.place.write_bytes(name, save({"z_in": z_in.contiguous(), "x_t0": x_t0.contiguous()}))
        except StorageError as error:
            self._tell(error)

    def _read(self, name: str) -> tuple[Tensor, Tensor] | None:
        """None where nothing usable is kept."""
        size, width = self._base.image_size, self._base.spec.encoder.out_channels
        try:
            codes = load(self._keep.place.read_bytes(name))
            if _shapes(codes) == {"z_in": (width,), "x_t0": (3, size, size)}:
                return codes["z_in"], codes["x_t0"]
        except NotFound:
            pass
        except (StorageError, SafetensorError) as error:
            self._tell(error)
        return None

    def _tell(self, error: Exception) -> None:
        """Once for each kind."""
        kind = type(error).__name__
        if kind not in self._said:
            self._said.add(kind)
            log.warning("structure cache: %s", error)


def _shapes(codes: dict[str, Tensor]) -> dict[str, Sequence[int]]:
    return {name: tuple(tensor.shape) for name, tensor in codes.items()}
