"""The gallery in a real browser, opened from disk as people do."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from catalog.schema import StyleVersion
from cluster.storage import Storage
from tests.support.browser import CHROMIUM, WITHOUT_BROWSER, browser, opened
from tests.support.gallery_case import PHOTO, REFERENCE, STYLE, make_gallery, version_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT_BROWSER)

HOSTILE = "<script>window.hacked=1</script></script><img src=x onerror='window.hacked=1'>\"'`${1} naïve 雪 🎨"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten styles; 3 has two versions, 4 no preview, 5 is hostile."""
    folder = tmp_path_factory.mktemp("gallery")
    storage = Storage.open(folder / "storage")
    versions = [version_of(storage, i, previewed=i != 4) for i in range(10)]
    versions[3] = version_of(storage, 3, aliases=["best"])
    second = {
        "version": 2,
        "aliases": [],
        "created_at": versions[9].created_at,
        "metrics": {"structure": 0.99},
        "tags": ["sea"],
    }
    versions.append(StyleVersion.model_validate(versions[3].model_dump() | second))
    bad = {"notes": HOSTILE, "license": HOSTILE, "base_name": HOSTILE, "metrics": {HOSTILE: 1.5, "__proto__": 2}}
    versions[5] = StyleVersion.model_validate(versions[5].model_dump() | bad)
    return make_gallery(folder, versions, title=HOSTILE)[0]


@pytest.fixture
def page(chromium: Browser, gallery: Path) -> Iterator[Page]:
    with opened(chromium, gallery) as found:
        yield found


def names(page: Page) -> list[str]:
    """What is to be seen, in order."""
    return page.locator("#grid [role=listitem]:not([hidden]) .name").all_text_contents()


def colour(target: Locator, x: float = 0.5, y: float = 0.3) -> tuple[int, int, int]:
    """A pixel of what the browser shows, at parts of its width and height."""
    picture = Image.open(io.BytesIO(target.screenshot())).convert("RGB")
    return picture.getpixel((int(picture.width * x), int(picture.height * y)))


def near(a: tuple[int, ...], b: tuple[int, ...], by: int = 45) -> bool:
    return all(abs(u - v) <= by for u, v in zip(a, b, strict=True))


def card(page: Page, number: int) -> Locator:
    return page.get_by_role("button", name=f"Open style-{number:04d}@", exact=False)


def test_cards_show_the_style_on_the_chosen_portrait(page: Page) -> None:
    expect(page.locator("#count")).to_have_text("10 of 10 styles")
    assert names(page)[:3] == ["style-0003", "style-0009", "style-0008"]  # newest first; 3 was made again
    picture = card(page, 0).locator(".tile")
    assert near(colour(picture), STYLE, 20)
    page.get_by_role("radio", name="grey curls").click()
    assert near(colour(picture), (STYLE[0], STYLE[1] + 70, STYLE[2]), 20)
    page.keyboard.press("1")
    assert near(colour(picture), STYLE, 20)
    page.keyboard.press("p")
    assert near(colour(picture), PHOTO, 20)
    assert near(colour(card(page, 4).locator(".tile")), REFERENCE)
    expect(card(page, 4).locator(".absent")).to_have_text("reference only")


def test_filters_combine_and_clear(page: Page) -> None:
    page.fill("#query", "STYLE-000 oil")
    assert set(names(page)) == {f"style-{i:04d}" for i in (1, 2, 4, 5, 7, 8)}
    page.get_by_role("group", name="Tags").get_by_role("button", name="cold").click()
    assert names(page) == ["style-0005"]
    page.get_by_role("group", name="Tags").get_by_role("button", name="cold").click()
    page.select_option("#base", "mini64")
    assert names(page) == ["style-0007", "style-0001"]
    page.locator("#ranges summary").click()
    page.get_by_label("structure from").fill("0.7")
    assert names(page) == ["style-0001"]  # 0.87; 7 has 0.59
    page.get_by_label("structure to").fill("0.8")
    assert names(page) == []
    page.get_by_role("button", name="Clear all filters").click()
    expect(page.locator("#count")).to_have_text("10 of 10 styles")
    page.check("#every")
    expect(page.locator("#count")).to_have_text("11 of 11 versions")
    page.fill("#query", "best")
    assert names(page) == ["style-0003"]


def test_sorting(page: Page) -> None:
    page.select_option("#sort", "name")
    assert names(page) == [f"style-{i:04d}" for i in range(10)]
    page.select_option("#sort", "structure:high")
    assert names(page)[:3] == ["style-0003", "style-0004", "style-0008"]  # 0.99, 0.98, 0.96
    assert names(page)[-1] == "style-0005"  # has none
    page.select_option("#sort", "structure:low")
    assert names(page)[0] == "style-0000"
    assert names(page)[-1] == "style-0005"


def test_the_view_is_in_the_address(page: Page) -> None:
    page.fill("#query", "oil & co")
    page.select_option("#sort", "name")
    page.locator("#ranges summary").click()
    page.get_by_label("structure from").fill("0.6")
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator("#query")).to_have_value("oil & co")
    expect(page.locator("#sort")).to_have_value("name")
    expect(page.locator("#metrics").get_by_label("structure from")).to_have_value("0.6")
    page.fill("#query", "0001")
    assert names(page) == ["style-0001"]


def test_the_slider_uncovers_the_photograph(page: Page) -> None:
    card(page, 0).click()
    compare, slider = page.locator("#compare"), page.locator("#slider")
    assert near(colour(compare, 0.2), PHOTO)
    assert near(colour(compare, 0.8), STYLE)
    box = compare.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.3, steps=4)
    page.mouse.up()
    assert int(slider.input_value()) < 15
    assert near(colour(compare, 0.2), STYLE)
    slider.focus()
    page.keyboard.press("End")
    assert near(colour(compare, 0.8), PHOTO)
    page.locator("#strip").get_by_role("radio", name="smile").click()
    assert near(colour(compare, 0.8), (PHOTO[0], PHOTO[1] + 40, PHOTO[2]), 20)


def test_a_style_without_preview_shows_its_reference(page: Page) -> None:
    card(page, 4).click()
    expect(page.locator("#slider")).to_be_hidden()
    assert near(colour(page.locator("#compare")), REFERENCE)


def test_everything_works_by_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.type("oil")
    page.keyboard.press("Escape")
    expect(page.locator("#query")).to_have_value("")
    page.keyboard.press("Escape")
    expect(page.locator("#query")).not_to_be_focused()
    page.keyboard.press("ArrowDown")
    first = names(page)
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowUp", 0), ("ArrowDown", -4)):
        page.keyboard.press(key)
        focused = page.locator(":focus")
        if place >= 0:
            expect(focused.locator(".name")).to_have_text(first[place])
    assert focused.bounding_box()["y"] > card(page, 3).bounding_box()["y"]  # type: ignore[index]
    assert focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"

    page.keyboard.press("Home")
    card(page, 3).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_have_text("style-0003@2")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-name")).to_have_text(f"{first[1]}@1")
    page.keyboard.press("3")
    expect(page.locator("#strip [aria-checked=true]")).to_have_attribute("aria-label", "moustache")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator(":focus").locator(".name")).to_have_text(first[1])


def test_versions_lead_to_each_other(page: Page) -> None:
    card(page, 3).click()
    page.locator("#facts").get_by_role("button", name="v1 best").click()
    expect(page.locator("#detail-name")).to_have_text("style-0003@1")
    expect(page.locator("#badges")).to_contain_text("@best")
    assert "--styles style-0003@1" in page.locator("#command").input_value()


def test_text_from_people_stays_text(page: Page) -> None:
    expect(page.locator("h1")).to_have_text(HOSTILE)
    card(page, 5).click()
    expect(page.locator("#notes")).to_have_text(HOSTILE)
    expect(page.locator("#facts")).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    page.fill("#query", "onerror='window.hacked=1'>")
    assert names(page) == ["style-0005"]
    page.select_option("#base", HOSTILE)
    page.select_option("#sort", f"{HOSTILE}:low")
    page.locator("#ranges summary").click()
    page.get_by_label("__proto__ from").fill("2")
    page.reload()
    assert names(page) == ["style-0005"]
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2


def test_a_telephone(chromium: Browser, gallery: Path) -> None:
    with opened(chromium, gallery, 360, 740, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        first, second, third = (page.locator(".card").nth(i).bounding_box() for i in range(3))
        assert first
        assert second
        assert third
        assert first["y"] == second["y"] < third["y"]
        assert first["width"] > 150
        card(page, 0).tap()
        assert page.locator("#compare").bounding_box()["width"] > 320  # type: ignore[index]
        assert page.evaluate("document.querySelector('#detail').scrollWidth") <= 360
        page.locator("#slider").tap(position={"x": 40, "y": 60})
        assert int(page.locator("#slider").input_value()) < 30
        page.get_by_role("button", name="Close").tap()
        expect(page.locator("#detail")).to_be_hidden()


def test_light_and_dark(chromium: Browser, gallery: Path) -> None:
    def brightness(page: Page) -> int:
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).background]"
        )
        ink, paper = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in (ink, paper))
        assert abs(ink - paper) > 400
        return paper

    for scheme in ("light", "dark"):
        with opened(chromium, gallery, color_scheme=scheme) as page:
            before = brightness(page)
            assert (before > 400) == (scheme == "light")
            page.get_by_role("button", name="Light or dark").click()
            assert (brightness(page) > 400) == (scheme == "dark")


def test_a_thousand_styles(chromium: Browser, tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "storage")
    path, _ = make_gallery(tmp_path, [version_of(storage, i) for i in range(1000)])
    with opened(chromium, path) as page:
        expect(page.locator("#count")).to_have_text("1,000 of 1,000 styles")
        loaded = page.evaluate("[...document.images].filter(image => image.complete && image.naturalWidth).length")
        assert 0 < loaded < 500, "pictures far below are not loaded"
        page.fill("#query", "style-0777")
        assert names(page) == ["style-0777"]
        assert near(colour(card(page, 777).locator(".tile")), (*STYLE[:2], STYLE[2] + 777 % 40), 20)
        page.fill("#query", "")
        page.select_option("#sort", "name")
        page.locator("#grid [role=listitem]").last.scroll_into_view_if_needed()
        assert near(colour(card(page, 999).locator(".tile")), (*STYLE[:2], STYLE[2] + 999 % 40), 20)
