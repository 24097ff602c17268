"""Previews on the probe set: the same photographs for every style, encoded once."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from jobs.shared import previews
from jobs.shared.previews import make_preview
from osasis.base import Base, load_base
from osasis.checkpoint import Style, load_style
from osasis.settings import StylizeConfig
from osasis.stylize import encode, encoding_for, stylize
from tests.support.tiny import SIZE, make_tiny_base, make_tiny_style


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base"), bank=False))


@pytest.fixture(scope="module")
def styles(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Style]:
    folder = tmp_path_factory.mktemp("styles")
    bundle = make_tiny_base(folder / "base", bank=False)
    return [load_style(make_tiny_style(bundle, folder / f"{i}.safetensors", seed=i), base) for i in range(2)]


def test_a_preview_is_what_stylize_makes(base: Base, styles: list[Style], tmp_path: Path) -> None:
    settings = StylizeConfig()
    preview = make_preview(styles[0], base, tmp_path)
    encoded = encode(base, preview.photos, encoding_for(styles[0], settings))
    assert torch.equal(preview.stylized, stylize(styles[0], encoded, settings))
    for size, side in (("base", SIZE), ("original", 256), (100, 100)):
        assert Image.open(io.BytesIO(preview.png(size))).size == (8 * side, 2 * side)
    measured = preview.metrics(torch.rand(1, 3, SIZE, SIZE), base)
    assert set(measured) == {"structure", "style_distance", "photo_style_distance"}


def test_styles_of_a_base_share_one_encoding(
    base: Base, styles: list[Style], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(previews, "encode", lambda *given: counted.append(given) or encode(*given))
    first = make_preview(styles[0], base, tmp_path)
    again, other = make_preview(styles[0], base, tmp_path), make_preview(styles[1], base, tmp_path)
    assert len(counted) == 1
    assert torch.equal(first.stylized, again.stylized)
    assert torch.equal(first.photos, other.photos)
    assert not torch.equal(first.stylized, other.stylized)

    (cached,) = tmp_path.rglob("*.safetensors")
    cached.write_bytes(cached.read_bytes()[:100])
    assert torch.equal(make_preview(styles[0], base, tmp_path).stylized, first.stylized)
    assert len(counted) == 2
