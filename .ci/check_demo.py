"""Measures a demo's pictures: the style changed them, the structure remained. Exits with 1 where they did not.

Measures (osasis/metrics.py) and thresholds, per style, mean over its pictures:
- style: distance to the reference in moments of colour and CLIP features, relative to the photographs' own: below 0.97;
- change: mean absolute difference from the photographs, in [-1, 1]: above 0.05;
- structure: correlation of edges with the photographs: above 0.6.
"""

import sys
from pathlib import Path

import torch

from catalog.manifest import Manifest
from catalog.store import StyleCatalog
from cluster.storage import Storage
from osasis.base import bundled_bases, load_base
from osasis.image import FitTransform, decode_image, to_tensor
from osasis.metrics import gradient_correlation, style_distance

MOST_STYLE, LEAST_CHANGE, LEAST_STRUCTURE = 0.97, 0.05, 0.6


def picture(uri: str, size: int, box: tuple[int, int, int, int] | None = None) -> torch.Tensor:
    image = decode_image(Storage.open(uri).read_bytes())
    return to_tensor((image.crop(box) if box else image).resize((size, size)))


def main(storage: Storage) -> int:
    base = load_base(bundled_bases()["mini64"])
    manifest = Manifest(storage.child("stylized")).rows(status="done")
    versions = StyleCatalog.open(storage).resolve("all")
    bad = 0
    for version in versions:
        rows = [r for r in manifest if (r["style_id"], r["version"]) == (version.style_id, version.version)]
        size = base.image_size
        photos = torch.stack(
            [picture(r["input_uri"], size, FitTransform.model_validate_json(r["transform"]).box) for r in rows]
        )
        results = torch.stack([picture(r["output_uri"], size) for r in rows])
        reference = picture(version.reference_uri, size)[None]
        with torch.no_grad():
            style = (style_distance(results, reference, base) / style_distance(photos, reference, base)).mean().item()
            structure = gradient_correlation(photos, results).mean().item()
        change = (photos - results).abs().mean().item()
        good = style < MOST_STYLE and change > LEAST_CHANGE and structure > LEAST_STRUCTURE
        bad += not good
        print(f"{version}: {len(rows)} pictures, style {style:.2f}, change {change:.2f}, structure {structure:.2f}: "
              f"{'good' if good else 'BAD'}")  # fmt: skip
    return int(bad > 0 or len(versions) != 2 or not manifest)


if __name__ == "__main__":
    sys.exit(main(Storage.open(Path(sys.argv[1]))))
