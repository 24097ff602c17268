"""The base that comes with the project, and the page that shows what it does."""

import json

import torch
from PIL import Image

from catalog.schema import NewStyle, StyleVersion
from jobs.shared.gallery import Column, Gallery
from osasis.base import bundled_bases, fingerprint, load_base
from osasis.content import stored_bank
from osasis.image import decode_image, fit, to_tensor
from osasis.metrics import gradient_correlation
from osasis.pretrain.recipe import RECIPES
from osasis.settings import train_config
from osasis.stylize import Encoding, encode
from tests.support.jobs_run import ROOT

MIB = 1 << 20


def test_mini64_is_whole_small_and_as_its_recipe_says() -> None:
    folder = bundled_bases()["mini64"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40 * MIB
    base, recipe = load_base(folder), RECIPES["mini64"]()
    assert base.fingerprint == fingerprint(base.spec)
    for name in ("unet", "encoder", "latent_prior", "photo_prior", "clip", "perceptual", "style_levels"):
        assert getattr(base.spec, name) == getattr(recipe, name)
    config = train_config("official", base.spec.train_defaults)
    assert base.spec.train_defaults == json.loads(json.dumps(recipe.train_defaults))
    bank = stored_bank(base, steps=config.encode_steps, t0_ratio=config.t0_ratio, clamp=config.clamp)
    assert bank is not None
    assert len(bank) == 64


@torch.no_grad()
def test_mini64_knows_smiles_and_encodes_structure() -> None:
    base = load_base(bundled_bases()["mini64"])
    paths = sorted((ROOT / "samples" / "portraits").glob("*.jpg"))[:4]
    photos = torch.stack([to_tensor(fit(decode_image(path.read_bytes()), 64)[0]) for path in paths])
    texts = base.clip.encode_text(["a photo of a smiling person", "a pencil sketch of a person"])
    nearest = (base.clip.encode_image(photos) @ texts.T).argmax(1)
    assert nearest.tolist() == [0, 0, 0, 0]
    encoded = encode(base, photos, Encoding(steps=20, t0_ratio=0.4, clamp=True))
    assert (gradient_correlation(encoded.x_t0, photos) > 0.2).all()


def test_the_page_shows_hostile_names_as_text() -> None:
    style = StyleVersion.of(
        NewStyle(
            style_id="s", base_name="b", base_fingerprint="f", checkpoint_uri="c", checkpoint_sha256="0" * 64,
            checkpoint_bytes=1, preset="official", train_config={}, reference_uri="r", reference_sha256="0" * 64,
            run_id="r", train_seconds=0, device="cpu",
        ),
        1,
    )  # fmt: skip
    picture = Image.new("RGB", (16, 16), "red")
    name = "x/<script>alert('1').png"
    gallery = Gallery({name: picture, "x/b.png": picture}, [Column(style, picture, {name: picture})])
    page = gallery.html("<b>").decode()
    assert page.count("<script>") == 1
    assert "alert(&#x27;1&#x27;)" in page
    assert page.count("<tr>") == 3
    assert page.count("type='range'") == 1
    assert gallery.sheet(blocks=1).width == 4 + 2 * 260


def test_who_loads_a_base_computes_float32_without_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    load_base(bundled_bases()["mini64"], check=False)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
