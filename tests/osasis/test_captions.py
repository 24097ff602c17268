"""Captions and restyled pictures for CLIP pretraining."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osasis.networks.clip import ClipConfig, words
from osasis.pretrain import captions
from osasis.pretrain.paint import STYLES, Style, paint_all
from osasis.pretrain.recipe import RECIPES

ROW = {
    "id": "us0001",
    "person": "man",
    "age": "old",
    "smile": "open",
    "glasses": "yes",
    "beard": "beard",
    "hair": "gray",
    "background": "flag",
}
VALUES = {name: ["", *table] for name, table in captions.CLAUSES.items()} | {"person": ["", "man", "woman"]}
rows = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})


def many(row: captions.Row, colors: bool = True) -> list[str]:
    rng = random.Random(0)
    return [captions.caption(row, rng, colors=colors) for _ in range(200)]


def test_the_same_generator_gives_the_same_captions() -> None:
    assert many(ROW) == many(ROW)
    assert len(set(many(ROW))) > 100


def test_a_full_caption_says_what_the_row_says() -> None:
    assert captions.full_caption(ROW) == (
        "a photo of an old man with a big smile with glasses with a beard with gray hair in front of a flag"
    )


def test_absent_things_are_said_too() -> None:
    said = " | ".join(many(ROW | {"glasses": "no", "beard": "none"}))
    assert "without glasses" in said
    assert "clean-shaven" in said
    assert "with glasses" not in said
    assert "bearded" not in said


def test_rare_things_are_said_more_often_than_common_ones() -> None:
    rare = sum("beard" in text or "facial hair" in text for text in many(ROW))
    common = sum("beard" in text or "shaven" in text or "facial" in text for text in many(ROW | {"beard": "none"}))
    assert rare > 1.5 * common


@given(rows)
def test_unknown_attributes_are_not_mentioned(row: dict[str, str]) -> None:
    for attribute in captions.CLAUSES:
        blank = row | {attribute: ""}
        phrases = [
            p for table in (captions.CLAUSES, captions.ADJECTIVES) for v in table.get(attribute, {}).values() for p in v
        ]
        caption = captions.full_caption(blank)
        assert not any(f" {phrase} " in f" {caption} " for phrase in phrases)


def test_colours_are_not_named_where_they_are_lost() -> None:
    assert not any("gray" in text or "grey" in text or "flag" in text for text in many(ROW, colors=False))
    assert any("bald" in text for text in many(ROW | {"hair": "bald"}, colors=False))


@given(rows, st.sampled_from(STYLES), st.randoms(use_true_random=False))
def test_every_word_is_in_the_vocabulary(row: dict[str, str], style: Style, rng: random.Random) -> None:
    vocabulary = set(captions.vocabulary(word for s in STYLES for word in s.words))
    assert vocabulary >= set(words(captions.caption(row, rng, style.words, style.colors)))


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.paint.__name__)
def test_painters_keep_shape_and_change_pixels(style: Style) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    before = image.copy()
    painted, again = (style.paint(image, np.random.default_rng(1)) for _ in range(2))
    assert painted.shape == image.shape
    assert painted.dtype == np.uint8
    assert (painted != image).mean() > 0.2
    np.testing.assert_array_equal(painted, again)
    np.testing.assert_array_equal(image, before)


def test_variants_belong_to_the_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    painted, styles = paint_all(images, 2, seed=0)
    fewer, fewer_styles = paint_all(images[:1], 2, seed=0)
    assert painted.shape == (6, 32, 32, 3)
    assert [styles[0], styles[3]] == fewer_styles
    assert styles[0] != styles[3]
    np.testing.assert_array_equal(painted[[0, 3]], fewer)


def test_more_variants_than_styles_are_refused() -> None:
    with pytest.raises(ValueError, match="styles"):
        paint_all(np.zeros((1, 32, 32, 3), np.uint8), len(STYLES) + 1, seed=0)


@given(st.sampled_from([*captions.CONTRASTED]), st.randoms(use_true_random=False))
def test_contrasts_differ_by_value(attribute: str, rng: random.Random) -> None:
    texts = captions.contrasts(attribute, rng)
    assert len(texts) == len(captions.CONTRASTED[attribute])
    assert attribute == "beard" or len(set(texts)) == len(texts)  # beard and mustache are both facial hair
    assert set(captions.vocabulary()) >= set(words(" ".join(texts)))


def test_contrasted_picks_the_rows_value() -> None:
    fits = {a: captions.CONTRASTED[a][captions.contrasted(ROW, a)] for a in captions.CONTRASTED}
    assert fits == {name: value for name, value in ROW.items() if name != "id"}
    assert captions.contrasted(ROW | {"glasses": ""}, "glasses") == -1
    assert captions.contrasted(ROW | {"background": "other"}, "background") == -1
    assert captions.contrasted(ROW, "hair", colors=False) == -1


def test_a_rows_own_caption_is_what_is_said() -> None:
    row = {"caption": " a brown dog on grass ", "person": "man", "smile": "open"}
    said = [captions.caption(row, random.Random(i)) for i in range(20)]
    assert all("a brown dog on grass" in text and "man" not in text.split() for text in said)
    assert any(text.endswith("of a brown dog on grass") for text in said)
    assert captions.full_caption(row) == "a photo of a brown dog on grass"
    rows = [{"caption": "A dog, a cat"}, {"caption": "a dog"}, {"smile": "open"}]
    assert captions.own_words(rows) == ("a", "cat", "dog")
    assert captions.own_words(rows, most=2) == ("a", "dog")
    recipe = RECIPES["mini64"]()
    assert recipe.with_words(()) is recipe
    clip = recipe.with_words(("dog", "photo")).clip
    assert set(clip.vocab) == {*(recipe.clip.vocab), "dog"}
    assert clip == ClipConfig.model_validate(clip.model_dump())  # its sizes agree
    assert RECIPES["ffhq256"]().with_words(("dog",)).clip.vocab == ()
