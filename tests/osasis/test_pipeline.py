"""The Python API for one process: pictures in and out, catalogs, training in a notebook."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import osasis
from cluster.storage import Storage
from osasis import StylePipeline, StylizeConfig, TextConfig, load_base, train_style
from osasis.errors import BaseError, ImageRejected
from osasis.image import fit, to_image, to_tensor
from osasis.strength import at_strength
from osasis.stylize import encode, encoding_for, stylize
from tests.support.hostile import picture
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE, make_tiny_base, make_tiny_style

FAST: dict[str, Any] = {"encode_steps": 10, "decode_steps": 5}
QUICK_TEXT = {"text": "smiling", "source_text": "a photo", "text_steps": 3, "text_decode_steps": 1, "t0_ratio": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    make_tiny_base(folder / "base")
    make_tiny_style(folder / "base", folder / "style.safetensors")
    return folder


@pytest.fixture
def pipeline(folder: Path) -> StylePipeline:
    return StylePipeline.from_files(folder / "base", folder / "style.safetensors")


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def test_importing_is_light_and_all_is_complete() -> None:
    """`import osasis` loads neither torch nor a submodule, and every name of __all__ is there with words on it."""
    code = "import sys, osasis; assert not {'torch', 'pydantic', 'osasis.base'} & set(sys.modules); print(dir(osasis))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "StylePipeline" in shown
    assert {*osasis._HOME, "__version__"} == set(osasis.__all__)
    submodules = {path.stem for path in Path(osasis.__path__[0]).iterdir()}
    for name in osasis.__all__:
        assert getattr(osasis, name).__doc__
        assert name not in submodules, "the submodule would take the name's place"
    with pytest.raises(AttributeError, match="nonsense"):
        osasis.nonsense  # noqa: B018


def test_a_call_is_the_librarys_stylize(pipeline: StylePipeline) -> None:
    config = StylizeConfig(**FAST, style_strength=0.5, lambda_spn=0.3)
    photo = picture(40, 30)
    tensor = to_tensor(fit(photo, SIZE)[0])[None]
    style = at_strength(pipeline.style, pipeline.base, 0.5)
    by_hand = stylize(style, encode(pipeline.base, tensor, encoding_for(style, config)), config)
    assert same(pipeline(photo, **FAST, style_strength=0.5, lambda_spn=0.3), to_image(by_hand[0]))
    assert not same(pipeline(photo, **FAST), to_image(by_hand[0]))


def test_lists_batches_and_modes(pipeline: StylePipeline) -> None:
    photos = [picture(40, 30, seed=i) for i in range(3)]
    alone = [pipeline(photo, **FAST) for photo in photos]
    together = pipeline(photos, batch_size=2, **FAST)
    assert isinstance(together, list)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1
    assert pipeline([], **FAST) == []
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert same(pipeline(clear, **FAST), pipeline(Image.new("RGB", (20, 20), "white"), **FAST))
    assert pipeline(picture(20, 20).convert("L"), **FAST).mode == "RGB"


def test_framing(pipeline: StylePipeline) -> None:
    photo = picture(40, 30)
    assert pipeline(photo, **FAST).size == (SIZE, SIZE)
    assert pipeline(photo, framing="original", **FAST).size == (30, 30)
    assert pipeline(photo, framing="original", fit="pad", **FAST).size == (40, 30)


def test_text_seeds_and_progress(pipeline: StylePipeline) -> None:
    photo, told = picture(20, 20), list[tuple[str, int, int]]()
    smiling = pipeline(photo, callback=lambda *event: told.append(event), **FAST, **QUICK_TEXT)
    assert told == [("encode", 1, 1), ("text", 1, 3), ("text", 2, 3), ("text", 3, 3), ("stylize", 1, 1)]
    assert not same(smiling, pipeline(photo, **FAST, t0_ratio=0.5))
    assert same(smiling, pipeline(photo, generator=torch.Generator().manual_seed(5), **FAST, **QUICK_TEXT))
    with pytest.raises(ValueError, match="knows none of zebra"):
        pipeline(photo, text="zebra")


def test_the_base_alone(folder: Path) -> None:
    alone = StylePipeline.from_files(folder / "base")
    assert alone(picture(20, 20), **FAST).size == (SIZE, SIZE)
    with pytest.raises(ValueError, match="no style to save"):
        alone.save(folder / "none.safetensors")


def test_bad_calls(pipeline: StylePipeline, folder: Path) -> None:
    with pytest.raises(TypeError, match="unknown settings lambda_spm; there are color_match, decode_steps"):
        pipeline(picture(20, 20), lambda_spm=1)
    with pytest.raises(TypeError, match="PIL"):
        pipeline(["photo.jpg"])
    with pytest.raises(ImageRejected, match="fewer than"):
        pipeline(Image.new("RGB", (2, 2)))
    with pytest.raises(BaseError, match="not a base bundle"):
        StylePipeline.from_files(folder / "nothing")


def test_saving_and_moving(pipeline: StylePipeline, folder: Path) -> None:
    photo = picture(20, 20)
    before = pipeline(photo, **FAST)
    pipeline.save(folder / "again.safetensors")
    assert same(StylePipeline.from_files(folder / "base", folder / "again.safetensors")(photo, **FAST), before)
    assert same(pipeline.to("cpu")(photo, **FAST), before)


def test_from_a_catalog(storage: Storage, tmp_path: Path) -> None:
    case = Case.make(storage, tmp_path, styles=2)
    pipeline = StylePipeline.from_catalog(storage.uri, "style-1", base=case.base)
    assert pipeline.style.style_id == "style-1"
    assert pipeline(picture(20, 20), **FAST).size == (SIZE, SIZE)
    with pytest.raises(LookupError, match="style-7"):
        StylePipeline.from_catalog(storage.uri, "style-7", base=case.base)
    with pytest.raises(BaseError, match="not bundled"):
        StylePipeline.from_catalog(storage.uri, "style-0")


def test_a_catalog_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "catalog.store", None)
    with pytest.raises(ImportError, match="from_files does without"):
        StylePipeline.from_catalog(tmp_path, "style-0")


def test_training_in_a_notebook(folder: Path) -> None:
    told = list[tuple[int, int]]()
    pipeline = train_style(
        picture(20, 20), folder / "base", style_id="mine", iterations=2,
        callback=lambda done, total, losses: told.append((done, total)),
    )  # fmt: skip
    assert told == [(1, 2), (2, 2)]
    pipeline.save(folder / "mine.safetensors")
    loaded = StylePipeline.from_files(folder / "base", folder / "mine.safetensors")
    assert loaded.style.style_id == "mine"
    close = np.asarray(loaded(picture(20, 20), **FAST)).astype(int) - np.asarray(pipeline(picture(20, 20), **FAST))
    assert np.abs(close).max() <= 2, "the file holds 16 bits"
    with pytest.raises(ValueError, match="iterations"):
        train_style(picture(20, 20), folder / "base", iterations=0)


def test_settings_are_of_one_of_two_kinds() -> None:
    assert not set(StylizeConfig.model_fields) & set(TextConfig.model_fields)
    assert load_base is osasis.load_base


def test_a_size_lays_the_square_back_on_the_whole_picture(pipeline: StylePipeline) -> None:
    photo = picture(60, 40)
    whole = pipeline(photo, size="original", **FAST)
    assert whole.size == (60, 40)
    np.testing.assert_array_equal(np.asarray(whole)[:, :10], np.asarray(photo)[:, :10])
    assert not same(whole, photo)
    assert pipeline(photo, size=30, **FAST).size == (30, 20)
    assert pipeline(photo, size=600, **FAST).size == (60, 40), "nothing is enlarged"
    assert pipeline(photo, size="original", fit="pad", **FAST).size == (60, 40)
    assert [image.size for image in pipeline([photo, picture(33, 50)], size="original", **FAST)] == [(60, 40), (33, 50)]
    details = [pipeline(photo, size="original", detail=detail, **FAST) for detail in ("guided", "residual", "none")]
    assert len({image.tobytes() for image in details}) == 3


def test_a_style_knows_its_references_contrast_and_keeps_it_in_its_file(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4 * SIZE, 4 * SIZE, 3), dtype=np.uint8)
    quick: dict[str, Any] = {"iterations": 1, "batch_size": 1, "encode_steps": 10, "decode_steps": 5}
    trained = train_style(Image.fromarray(noise), folder / "base", photo=picture(SIZE, SIZE), **quick)
    assert np.asarray(trained.style.header.texture).shape == (2, 3)
    trained.save(tmp_path / "style.safetensors")
    saved = StylePipeline.from_files(folder / "base", tmp_path / "style.safetensors")
    assert saved.style.header.texture == trained.style.header.texture
    photo = picture(4 * SIZE, 4 * SIZE)
    textured, plain = (
        np.asarray(saved(photo, size="original", detail=d, **FAST), float) for d in ("residual", "guided")
    )
    assert textured.std() > plain.std()


@pytest.mark.parametrize(
    "settings",
    [{"size": 0}, {"size": "large"}, {"size": "original", "framing": "original"}, {"detail": "guided"},
     {"size": 90, "detail": "sharp"}],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(pipeline: StylePipeline, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size|detail"):
        pipeline(picture(30, 30), **settings, **FAST)
