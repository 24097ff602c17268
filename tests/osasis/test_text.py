"""Text-driven manipulation: the method on the tiny base, and prompts through the job on disk and on S3."""

import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import jobs.stylize
from catalog.output_names import text_key
from cluster.commandline.cli import ConfigError, ExitCode, parse_flags
from cluster.storage import Storage
from jobs.streaming.command import StylizeFlags
from jobs.streaming.stylizing import Stylizer
from osasis.base import Base, load_base
from osasis.content import Content
from osasis.diffusion import ddim_decode
from osasis.networks.clip import ClipConfig
from osasis.settings import StylizeConfig, TextConfig
from osasis.strength import no_style, without_style
from osasis.stylize import Encoding, encode, encoding_for, stylize
from osasis.text_edit import edit, few_steps, text_loss
from tests.support.hostile import encoded as encoded_file
from tests.support.hostile import picture
from tests.support.in_process import without_cluster
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE, SPEC, make_tiny_base

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not import tests

ENCODING = Encoding(steps=10, t0_ratio=0.7, clamp=True)
TEXT = TextConfig(text_steps=6, text_decode_steps=2, source_text="a photo")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base"), bank=False))


@pytest.fixture(scope="module")
def content(base: Base) -> Content:
    photos = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return encode(base, photos, ENCODING)


def moved(base: Base, content: Content, prompt: str = "smiling", **settings: Any) -> Tensor:
    (changed,) = edit(base, content, [prompt], TEXT.model_copy(update=settings), ENCODING)
    return changed.z_in


@torch.no_grad()
def test_every_picture_moves_towards_the_text(base: Base, content: Content) -> None:
    texts = base.clip.encode_text(["a photo", "a photo smiling"])
    direction = (texts[1:] - texts[:1]).expand(len(content), -1)
    schedule = few_steps(ENCODING, TEXT.text_decode_steps, base.spec.unet.beta_end)

    def embedded(z: Tensor) -> Tensor:
        *_, (x, _) = ddim_decode(content.x_t0, lambda x, t: base.eps(x, t, z), schedule)
        return base.clip.encode_image(x)

    start, there = embedded(content.z_in), moved(base, content, text_steps=40, text_learning_rate=0.02)
    moves = embedded(there) - start
    assert (torch.nn.functional.cosine_similarity(moves, direction) > 0.3).all()
    assert (text_loss(moves, direction, reach=1.0) < text_loss(torch.zeros_like(moves), direction, reach=1.0)).all()


def test_strength_scales_the_move(base: Base, content: Content) -> None:
    assert torch.equal(moved(base, content, text_strength=0.0), content.z_in)
    once, twice = (moved(base, content, text_strength=s) - content.z_in for s in (1.0, 2.0))
    assert torch.allclose(twice, 2 * once, atol=1e-6)
    assert (once.norm(dim=1) > 0).all()


def test_the_pulls_hold_back(base: Base, content: Content) -> None:
    slow = {"text_steps": 25, "text_learning_rate": 0.02, "text_l2": 0.0}
    free = (moved(base, content, **slow) - content.z_in).norm()
    for pull in ("text_l2", "text_identity", "text_pixel"):
        held = (moved(base, content, **slow | {pull: 1000.0}) - content.z_in).norm()
        assert held < 0.9 * free, pull


def test_neighbours_and_repetition_change_nothing(base: Base, content: Content) -> None:
    together = moved(base, content)
    assert torch.equal(together, moved(base, content))
    alone = moved(base, content[torch.tensor([1])])
    assert (alone[0] - together[1]).norm() < 1e-3 * (together[1] - content.z_in[1]).norm()
    several = edit(base, content, ["painting", "smiling"], TEXT, ENCODING)
    assert (several[1].z_in - together).norm() < 1e-3 * (together - content.z_in).norm()
    assert (several[0].z_in - together).norm() > 0.1 * (together - content.z_in).norm()


def test_it_works_in_inference_mode(base: Base) -> None:
    with torch.inference_mode():
        content = encode(base, torch.zeros(1, 3, SIZE, SIZE), ENCODING)
        assert not torch.equal(moved(base, content), content.z_in)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "has no word that could change a picture"),
        ("with a", "has no word that could change a picture"),
        ("zebra", "knows none of zebra; its 4 words"),
        ("with zebra stripes", "knows none of stripes, zebra"),
    ],
)
def test_prompts_that_cannot_be_followed(base: Base, content: Content, prompt: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        edit(base, content, [prompt], TEXT, ENCODING)


def test_unknown_words_are_named() -> None:
    assert TEXT.check_prompt("smiling", SPEC.clip) == []
    assert TEXT.check_prompt("Smiling zebra", SPEC.clip) == ["zebra"]
    assert TEXT.check_prompt("zebra", ClipConfig(name="ViT-B-32")) == [], "byte pairs spell every word"
    with pytest.raises(ValueError, match="no CLIP"):
        TEXT.check_prompt("smiling", None)
    with pytest.raises(ValueError, match="the same text"):
        TextConfig(source_text="smiling", text_template="{text}").check_prompt("smiling", SPEC.clip)


@given(st.text(), st.text())
def test_folders_of_prompts(one: str, other: str) -> None:
    for key in (text_key(one), text_key(other)):
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-~")
        assert len(key) < 80
    assert (text_key(one) == text_key(other)) == (one == other)


def test_usual_prompts_have_readable_folders() -> None:
    assert text_key("with a beard") == "with-a-beard"
    assert text_key("With a beard").startswith("with-a-beard~")


def test_prompts_on_the_command_line() -> None:
    flags = ["--storage=s", "--input=i", "--styles=all", "--output=o"]
    assert parse_flags(StylizeFlags, flags).text == []
    twice = parse_flags(StylizeFlags, [*flags, "--text=smiling", "--text", "with glasses"])
    assert twice.text == parse_flags(StylizeFlags, [*flags, "--text", "smiling,with glasses"]).text
    assert twice.text == ["smiling", "with glasses"]


class Fussy(Stylizer):
    """Fails for one input in one variant."""

    def results(self, variant: Any, batch: Any) -> Any:
        if variant.label == "style-0@1~smiling" and any(row["key"] == "00001.png" for row in batch.rows):
            raise RuntimeError("not this one")
        return super().results(variant, batch)


FLAGS = {"text_steps": 2, "text_decode_steps": 1, "source_text": "a photo"}


def test_prompts_through_the_job(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No collision, no mixing: rows and folders of their own; retry, resume and rejected inputs as ever."""
    without_cluster(monkeypatch)
    case = Case.make(storage, tmp_path, styles=1)
    case.add({f"0000{i}.png": encoded_file(picture(24, 20, seed=i), "PNG") for i in range(2)} | {"bad.png": b"x"})
    texts = {"text": ["smiling", "painting smiling"], "styles": "none,style-0", **FLAGS}
    first = case.run(Fussy, **texts)
    assert first.now == {"done": 7, "rejected": 4, "failed": 1}
    assert case.run(**texts, retry_failed=True).now == {"done": 1}
    assert case.run(styles="none,style-0").now == {"done": 4, "rejected": 2}, "without a prompt, in the same output"
    assert case.run(**texts | {"text": ["smiling"]}).now == {}
    assert case.check_consistent() == {"done": 12, "rejected": 6}
    folders = {row["output_uri"].rsplit("/", 2)[1]: row for row in case.rows() if row["status"] == "done"}
    assert set(folders) == {
        f"{style}{text}" for style in ("none@0", "style-0@1") for text in ("", "~smiling", "~painting-smiling")
    }
    for folder, row in folders.items():
        assert folder.split("~")[0] == f"{row['style_id']}@{row['version']}"
        assert row["text"] == (folder.partition("~")[2].replace("-", " ") or None)
    pictures = {case.root.read_bytes(f"out/images/{folder}/00000.png.png") for folder in folders}
    assert len(pictures) == len(folders)

    with pytest.raises(ConfigError) as caught:
        case.run(**texts | {"text_strength": 2.0})
    assert "style-0@1~smiling" in str(caught.value)


@pytest.mark.usefixtures("ray_cluster")
def test_a_prompt_on_a_cluster(tmp_path: Path) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add_pictures(2)
    assert case.run(text=["smiling"], styles="none,style-0", **FLAGS).now == {"done": 4}
    assert case.check_consistent() == {"done": 4}


def test_what_a_plan_says_of_prompts(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case.make(Storage.open(tmp_path / "root"), tmp_path, styles=1)
    case.add_pictures(1)
    with pytest.raises(ConfigError) as caught:
        case.run(text=["zebra", "smiling", "with"])
    assert [problem.place for problem in caught.value.problems] == ["--text", "--text"]
    monkeypatch.setattr("sys.argv", [*case.argv(text="smiling zebra"), "--dry-run"])
    assert jobs.stylize.main() == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "zebra" in shown
    assert "does not know" in shown


def test_no_style_is_the_bases_reconstruction(base: Base) -> None:
    config = without_style(StylizeConfig(encode_steps=50, decode_steps=25, t0_ratio=0.2, f_ch=1))
    style = no_style(base)
    photos = torch.zeros(1, 3, SIZE, SIZE)
    assert stylize(style, encode(base, photos, encoding_for(style, config)), config).shape == photos.shape
