"""Control at inference: levels, swapped conditioning, strength; each must do what its name says, exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from jobs.streaming.command import StylizeFlags, params_hash, resolve
from osasis.base import Base, load_base
from osasis.checkpoint import Style, load_style
from osasis.color import colors_of, match_colors
from osasis.content import Content
from osasis.diffusion import ddim_decode, last
from osasis.finetune import decode_indices
from osasis.image import decode_image, fit, to_image, to_tensor
from osasis.settings import StylizeConfig
from osasis.strength import at_strength
from osasis.stylize import encode, encoding_for, stylize
from tests.support.in_process import InProcess
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE, make_tiny_base, make_tiny_style

FAST = {"encode_steps": 20, "decode_steps": 10}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base"), bank=False))


@pytest.fixture(scope="module")
def style(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Style:
    folder = tmp_path_factory.mktemp("style")
    make_tiny_base(folder / "base", bank=False)
    return load_style(make_tiny_style(folder / "base", folder / "style.safetensors"), base)


@pytest.fixture(scope="module")
def encoded(base: Base, style: Style) -> Content:
    photos = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return encode(base, photos, encoding_for(style, StylizeConfig(**FAST)))


def run(base: Base, style: Style, encoded: Content, **settings: Any) -> Tensor:
    config = StylizeConfig(**FAST | settings)
    return stylize(at_strength(style, base, config.weight_strength), encoded, config)


def reconstruction(base: Base, encoded: Content) -> Tensor:
    """The base's own decoding of the codes, without any part of a style."""
    schedule = base.ddim(FAST["decode_steps"])
    start = len(decode_indices(schedule, 0.5, matched=False))
    steps = ddim_decode(encoded.x_t0, lambda x, t: base.eps(x, t, encoded.z_in), schedule, start)
    return last((x for x, _ in steps), encoded.x_t0).clamp(-1, 1)


def test_strength_zero_is_the_bases_reconstruction(base: Base, style: Style, encoded: Content) -> None:
    assert torch.equal(run(base, style, encoded, style_strength=0), reconstruction(base, encoded))


def test_strength_one_is_the_style(base: Base, style: Style, encoded: Content) -> None:
    whole = stylize(style, encoded, StylizeConfig(**FAST))
    for part in ("both", "z", "weights"):
        assert torch.equal(run(base, style, encoded, style_strength=1, strength_of=part), whole)


def test_an_spn_that_is_spread_weighs_less_at_each_of_more_steps(base: Base, style: Style, encoded: Content) -> None:
    trained_in = {"decode_steps": FAST["decode_steps"] // 2}
    header = style.header.model_copy(
        update={"config": style.config.model_copy(update={"spn_steps": "spread"} | trained_in)}
    )
    spread = run(base, replace(style, header=header), encoded, lambda_spn=0.2)
    assert torch.equal(spread, run(base, style, encoded, lambda_spn=0.1))
    assert not torch.equal(spread, run(base, style, encoded, lambda_spn=0.2))


def test_colours_are_brought_to_the_references_as_far_as_is_asked(base: Base, style: Style, encoded: Content) -> None:
    plain = run(base, style, encoded)
    assert torch.equal(run(base, style, encoded, color_match=1.0), plain), "a style of before knows no colours"
    colors = ((0.1, 0.0, -0.1), (0.2, 0.2, 0.2))
    header = style.header.model_copy(update={"colors": colors})
    knowing = replace(style, header=header)
    assert torch.equal(run(base, knowing, encoded), plain), "0 where neither the training nor the call sets it"
    trained = header.model_copy(update={"config": style.config.model_copy(update={"color_match": 1.0})})
    matched = run(base, replace(style, header=trained), encoded)
    assert torch.equal(run(base, knowing, encoded, color_match=1.0), matched)
    half = run(base, knowing, encoded, color_match=0.5)
    assert not torch.equal(matched, plain)
    assert (half - plain).norm() < (matched - plain).norm()
    nothing = run(base, replace(style, header=trained), encoded, style_strength=0)
    assert torch.equal(nothing, run(base, style, encoded, style_strength=0))


def test_matched_colours_have_the_references_moments() -> None:
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.15
    reference = 0.5 * noise[:1].flip(1) + torch.tensor([0.2, 0.0, -0.2])[:, None, None]
    for part in (0.0, 0.5, 1.0):
        got = torch.tensor(colors_of(match_colors(noise[1:], colors_of(reference), part)))
        start, end = torch.tensor(colors_of(noise[1:])), torch.tensor(colors_of(reference))
        torch.testing.assert_close(got, torch.lerp(start, end, part), atol=1e-3, rtol=0)
    flat = match_colors(noise * 1e-3, colors_of(noise[:1]), 1.0)
    assert flat.std((2, 3)).max() < 1e-3, "what is nearly flat stays so"


def test_strength_moves_from_one_end_to_the_other(base: Base, style: Style, encoded: Content) -> None:
    for part in ("both", "z", "weights"):
        ends = [run(base, style, encoded, style_strength=s, strength_of=part) for s in (0, 1)]
        middle = run(base, style, encoded, style_strength=0.5, strength_of=part)
        assert not torch.equal(*ends)
        assert all((middle - end).norm() < (ends[0] - ends[1]).norm() for end in ends)


def test_weights_at_another_strength_are_refused(base: Base, style: Style, encoded: Content) -> None:
    with pytest.raises(ValueError, match=r"strength 1, not 0\.5"):
        stylize(style, encoded, StylizeConfig(**FAST, style_strength=0.5))
    with pytest.raises(ValueError, match=r"of strength 0\.5"):
        at_strength(at_strength(style, base, 0.5), base, 0.2)


def test_f_ch_counts_levels(base: Base, style: Style, encoded: Content) -> None:
    assert torch.equal(run(base, style, encoded, f_ch=1), run(base, style, encoded, style_levels=(0,)))
    assert torch.equal(run(base, style, encoded, f_ch=2), run(base, style, encoded, style_levels=(1, 0)))
    assert torch.equal(run(base, style, encoded, f_ch=0), run(base, style, encoded, strength_of="z", style_strength=0))
    with pytest.raises(ValueError, match="give 0 to 2"):
        run(base, style, encoded, f_ch=3)
    with pytest.raises(ValueError, match=r"\[2\] are not among"):
        run(base, style, encoded, style_levels=(0, 2))
    with pytest.raises(ValidationError, match="give only one"):
        StylizeConfig(f_ch=1, style_levels=(0,))


def test_swapped_conditioning(base: Base, style: Style, encoded: Content) -> None:
    """z_in on the fine levels, z_style on the coarse ones and the middle block: Figure 8."""
    swapped = run(base, style, encoded, f_ch=1, swap_conditioning=True)
    codes = {"z_in": encoded.z_in, "z_style": style.z_style.expand_as(encoded.z_in)}
    by_hand = Style(style.header, style.unet, style.spn, codes["z_in"], style.style_levels)
    other = Content(encoded.photos, codes["z_style"], encoded.x_t0)
    assert torch.equal(swapped, stylize(by_hand, other, StylizeConfig(**FAST, f_ch=1)))
    assert not torch.equal(swapped, run(base, style, encoded, f_ch=1))


def test_depth_and_spn_change_the_picture(base: Base, style: Style, encoded: Content) -> None:
    whole = run(base, style, encoded)
    for other in ({"lambda_spn": 0.5}, {"t0_ratio": 0.3}, {"decode_steps": 5}):
        assert not torch.equal(run(base, style, encoded, **other), whole)


def test_later_parameters_count_only_where_they_are_set() -> None:
    before = params_hash(StylizeConfig(), "crop", "f", decoder=1)
    assert before == "b1908c9bfb5d0c86", "an output of before these parameters is still the same output"
    first = params_hash(StylizeConfig(), "crop", "f")
    assert first != before, "pictures whose colours were ignored are not mixed with those whose colours are converted"
    others = [{"f_ch": 1}, {"swap_conditioning": True}, {"style_strength": 0.5}, {"seed": 1}, {"decode_steps": 20}]
    hashes = {params_hash(StylizeConfig(**other), "crop", "f") for other in others}
    assert len(hashes - {first}) == len(others)


def test_flags_reach_the_pictures(base: Base, style: Style, tmp_path: Path) -> None:
    """From the command line's flags to the file, without a cluster."""
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add_pictures(1)
    with pytest.raises(ConfigError, match="has 2 levels"):
        resolve(StylizeFlags(**case.flags, f_ch=9))
    settings = {"encode_steps": 10, "decode_steps": 5, "f_ch": 1, "swap_conditioning": True, "style_strength": 0.25}
    assert case.run(execute=InProcess.connected, **settings).now == {"done": 1}
    (row,) = case.rows()
    written = decode_image(Storage.open(row["output_uri"]).read_bytes())

    config = StylizeConfig(**settings)
    photo = to_tensor(fit(decode_image(Storage.open(row["input_uri"]).read_bytes()), SIZE)[0])[None]
    ours = stylize(at_strength(style, base, 0.25), encode(base, photo, encoding_for(style, config)), config)
    assert to_image(ours[0]).tobytes() == written.tobytes()
