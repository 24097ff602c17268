"""Versions to register, their files written, without any training."""

import hashlib
from typing import Any

from catalog.schema import NewStyle, StyleVersion
from cluster.storage import Storage


def new_style(storage: Storage, style_id: str, content: bytes = b"weights", **fields: Any) -> NewStyle:
    """With its checkpoint written."""
    digest = hashlib.sha256(content).hexdigest()
    name = f"styles/{style_id}/{digest[:8]}/style.safetensors"
    storage.write_bytes(name, content)
    given = {
        "style_id": style_id,
        "base_name": "mini64",
        "base_fingerprint": "f" * 64,
        "checkpoint_uri": storage.child_uri(name),
        "checkpoint_sha256": digest,
        "checkpoint_bytes": len(content),
        "preset": "official",
        "train_config": {"iterations": 200, "lr": 1e-4},
        "reference_uri": "samples/x.jpg",
        "reference_sha256": "0" * 64,
        "run_id": "run-1",
        "train_seconds": 12.5,
        "device": "cpu",
    }
    return NewStyle.model_validate(given | fields)


def trained_style(storage: Storage, style_id: str, content: bytes, **fields: Any) -> NewStyle:
    """In a folder as a training leaves it, with pictures."""
    digest = hashlib.sha256(content).hexdigest()
    folder = storage.child("checkpoints", style_id, digest[:12])
    for name in ("reference.png", "photo.png", "preview.png", "result.json"):
        folder.write_bytes(name, name.encode())
    folder.write_bytes("style.safetensors", content)
    uris = {f"{what}_uri": folder.child_uri(f"{what}.png") for what in ("reference", "photo", "preview")}
    given = uris | {"checkpoint_uri": folder.child_uri("style.safetensors"), "clip_embedding": [1.0, 0.5]} | fields
    return new_style(storage, style_id, content, **given)


def names(versions: list[StyleVersion]) -> list[str]:
    """``id@version`` of each."""
    return [str(version) for version in versions]


def finished_training(storage: Storage, style_id: str, content: bytes, key: str = "0123456789ab") -> NewStyle:
    """With all its files in the folder of this key, as a training leaves them."""
    folder = storage.child("checkpoints", style_id, key)
    for name in ("reference.png", "photo.png", "preview.png"):
        folder.write_bytes(name, b"a picture")
    uris = {f"{part}_uri": folder.child_uri(f"{part}.png") for part in ("reference", "photo", "preview")}
    folder.write_bytes("style.safetensors", content)
    return new_style(storage, style_id, content, **uris, checkpoint_uri=folder.child_uri("style.safetensors"))
