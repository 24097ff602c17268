"""The grammar of selections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.selector import STYLE_ID, Every, SelectorError, Style, Tagged, parse

IDS = st.from_regex(STYLE_ID, fullmatch=True).filter(lambda text: text != "all" and "\n" not in text)
TERMS = st.one_of(
    st.just(Every()),
    IDS.map(Tagged),
    IDS.map(Style),
    st.builds(Style, IDS, version=st.integers(1, 10**18 - 1)),
    st.builds(Style, IDS, alias=st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)),
)


def test_every_form_is_read() -> None:
    assert parse("monet, hokusai@2,monet@best , tag:oil-paint,all") == [
        Style("monet"),
        Style("hokusai", version=2),
        Style("monet", alias="best"),
        Tagged("oil-paint"),
        Every(),
    ]


@given(st.lists(TERMS, min_size=1, max_size=5))
def test_what_is_written_is_read_back(terms: list[Every | Tagged | Style]) -> None:
    assert parse(",".join(map(str, terms))) == terms


@pytest.mark.parametrize(
    "text",
    ["", ",", "monet,", "Monet", "-monet", "mo net", "monet@", "monet@0", "monet@01", "monet@-1", "monet@Best", "tag:",
     "tag:A", "all@1", "monet@1@2", "../x", "a" * 64, "monet@²", "é"],
)  # fmt: skip
def test_malformed_selections_are_refused(text: str) -> None:
    with pytest.raises(SelectorError, match="cannot read the selection"):
        parse(text)


def test_every_malformed_part_is_named() -> None:
    with pytest.raises(SelectorError) as caught:
        parse("Monet,good,tag:,x@0")
    for part in ("'Monet'", "'tag:'", "'x@0'"):
        assert part in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        terms = parse(text)
    except SelectorError:
        return
    assert terms
