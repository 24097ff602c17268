"""Captions for labelled portraits, from templates.

A row of labels maps attribute → value; an empty value is unknown and is not mentioned. Rows may have other columns.
A row with a text in ``caption`` is described by it instead: for dogs, churches, garments.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from osasis.networks.clip import words

Row = Mapping[str, str]

NOUNS: dict[str, tuple[str, ...]] = {
    "man": ("man", "man", "gentleman", "guy", "male face"),
    "woman": ("woman", "woman", "lady", "female face"),
    "": ("person", "face", "human"),
}

ADJECTIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "age": {
        "young": ("young", "youthful"),
        "middle-aged": ("middle-aged",),
        "old": ("old", "elderly", "senior", "aged"),
    },
    "smile": {
        "open": ("smiling", "happy", "grinning", "cheerful", "laughing"),
        "closed": ("slightly smiling", "gently smiling"),
        "none": ("serious", "stern", "unsmiling", "neutral"),
    },
    "glasses": {"yes": ("bespectacled",)},
    "beard": {"beard": ("bearded",), "mustache": ("mustached",)},
    "hair": {
        "brown": ("brown-haired", "brunette"),
        "gray": ("gray-haired", "grey-haired"),
        "black": ("black-haired", "dark-haired"),
        "blond": ("blond", "blonde", "fair-haired"),
        "white": ("white-haired",),
        "bald": ("bald", "bald-headed"),
        "red": ("red-haired", "ginger"),
    },
}

CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "smile": {
        "open": ("with a big smile", "smiling with teeth", "with an open smile", "with a broad smile", "smiling"),
        "closed": ("with a closed smile", "with a slight smile", "smiling with closed lips", "with closed mouth"),
        "none": ("with a serious expression", "not smiling", "without a smile", "with a neutral face"),
    },
    "glasses": {
        "yes": ("with glasses", "wearing glasses", "wearing eyeglasses", "in spectacles"),
        "no": ("without glasses", "not wearing glasses", "with no glasses"),
    },
    "beard": {
        "beard": ("with a beard", "with a full beard", "with facial hair", "wearing a beard"),
        "mustache": ("with a mustache", "with a moustache", "with facial hair"),
        "none": ("without a beard", "with no beard", "clean-shaven", "without facial hair"),
    },
    "hair": {
        "brown": ("with brown hair",),
        "gray": ("with gray hair", "with grey hair"),
        "black": ("with black hair", "with dark hair"),
        "blond": ("with blond hair", "with blonde hair", "with fair hair"),
        "white": ("with white hair",),
        "bald": ("with a bald head", "with no hair", "without hair"),
        "red": ("with red hair", "with ginger hair"),
    },
    "background": {
        "blue": ("on a blue background", "in front of blue"),
        "gray": ("on a gray background", "on a grey background"),
        "white": ("on a white background", "on a light background"),
        "brown": ("on a brown background",),
        "green": ("on a green background", "in front of trees"),
        "black": ("on a black background", "on a dark background"),
        "flag": ("in front of a flag", "with a flag behind"),
    },
}

PHOTO = ("photo", "photograph", "portrait photo", "color photo", "colour photo")
"""What a photograph is called."""

ANY = ("portrait", "picture", "image", "close-up")
"""What a picture of any medium is called."""

FRAMES = ("{medium} of {subject}", "{medium} of {subject}", "{medium}, {subject}", "{subject}, {medium}")

COLORED = frozenset({"background"}) | {f"hair:{c}" for c in CLAUSES["hair"] if c != "bald"}
"""Words that do not apply to a greyscale picture."""

_SAID = {"age": 0.4, "smile": 0.85, "glasses": 0.85, "beard": 0.9, "hair": 0.8, "background": 0.5}
_ABSENT = {"glasses": "no", "beard": "none"}
_ABSENT_SAID = 0.25
_PLAIN = 0.6
"""Share of captions that use an attribute's first phrase: words met too seldom are not learned."""


def caption(row: Row, rng: random.Random, medium: Iterable[str] = PHOTO, colors: bool = True) -> str:
    """One caption that mentions some of what the row says, absent things too ("without glasses").

    ``medium``: words for the medium, one of which is taken; ``colors``: whether the picture still has its colours.
    """
    named = rng.choice([*medium]) if rng.random() < 0.85 else rng.choice(ANY)
    if text := row.get("caption", "").strip():
        return rng.choice(FRAMES).format(medium=_with_article(named), subject=text)
    said = [a for a in _SAID if _sayable(row, a, colors) and rng.random() < _chance(a, row[a])]
    rng.shuffle(said)
    adjectives: list[str] = []
    clauses: list[str] = []
    for attribute in said:
        before = ADJECTIVES.get(attribute, {}).get(row[attribute], ())
        after = CLAUSES.get(attribute, {}).get(row[attribute], ())
        pick = (after or before)[0] if rng.random() < _PLAIN else rng.choice(before + after)
        (adjectives if pick in before else clauses).append(pick)
    person = row.get("person", "") if rng.random() < 0.85 else ""
    subject = " ".join([*adjectives, rng.choice(NOUNS[person]), *clauses])
    return rng.choice(FRAMES).format(medium=_with_article(named), subject=_with_article(subject))


def full_caption(row: Row) -> str:
    """The caption that says all the row knows, in fixed words; for retrieval."""
    if text := row.get("caption", "").strip():
        return f"a photo of {text}"
    said = [a for a in _SAID if _sayable(row, a, colors=True)]
    adjectives = [ADJECTIVES[a][row[a]][0] for a in said if a not in CLAUSES]
    clauses = [CLAUSES[a][row[a]][0] for a in said if a in CLAUSES]
    subject = " ".join([*adjectives, NOUNS[row.get("person", "")][0], *clauses])
    return f"a photo of {_with_article(subject)}"


CONTRASTED: dict[str, tuple[str, ...]] = {
    "person": ("man", "woman"),
    "age": tuple(ADJECTIVES["age"]),
    **{attribute: tuple(values) for attribute, values in CLAUSES.items()},
}
"""Attribute → values contrasted by captions that differ only in them."""


def contrasts(attribute: str, rng: random.Random) -> list[str]:
    """A caption for each contrasted value, otherwise identical."""
    medium, noun = rng.choice((*PHOTO, *ANY)), rng.choice(NOUNS[""])
    captions = []
    for value in CONTRASTED[attribute]:
        if attribute == "person":
            subject = rng.choice(NOUNS[value])
        else:
            before, after = (table.get(attribute, {}).get(value, ()) for table in (ADJECTIVES, CLAUSES))
            pick = rng.choice(before + after)
            subject = f"{pick} {noun}" if pick in before else f"{noun} {pick}"
        captions.append(f"{_with_article(medium)} of {_with_article(subject)}")
    return captions


def contrasted(row: Row, attribute: str, colors: bool = True) -> int:
    """Which of :func:`contrasts` fits the row; -1 for none."""
    value = row.get(attribute, "")
    if value not in CONTRASTED[attribute] or (attribute != "person" and not _sayable(row, attribute, colors)):
        return -1
    return CONTRASTED[attribute].index(value)


def prompts(attribute: str, value: str) -> list[str]:
    """Zero-shot prompts for one value; their mean embedding represents it."""
    if attribute == "person":
        subjects = [*NOUNS[value]]
    else:
        before, after = (table.get(attribute, {}).get(value, ()) for table in (ADJECTIVES, CLAUSES))
        subjects = [f"{word} person" for word in before] + [f"person {clause}" for clause in after]
    return [f"a photo of {_with_article(subject)}" for subject in subjects]


def vocabulary(media: Iterable[str] = ()) -> tuple[str, ...]:
    """Every word that captions can have, sorted; ``media`` are words of further media."""
    tables = [phrases for table in (ADJECTIVES, CLAUSES) for values in table.values() for phrases in values.values()]
    texts = [text for phrases in (*NOUNS.values(), *tables, PHOTO, ANY) for text in phrases]
    return tuple(sorted({word for text in (*texts, *media, "a an of") for word in words(text)}))


def own_words(rows: Iterable[Row], most: int = 4000) -> tuple[str, ...]:
    """The words of the rows' own captions, the ``most`` common ones, sorted; empty: they have none."""
    counts = Counter(word for row in rows for word in words(row.get("caption", "")))
    return tuple(sorted(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]))


def _sayable(row: Row, attribute: str, colors: bool) -> bool:
    value = row.get(attribute, "")
    if not colors and not COLORED.isdisjoint({attribute, f"{attribute}:{value}"}):
        return False
    return any(value in table.get(attribute, {}) for table in (ADJECTIVES, CLAUSES))


def _chance(attribute: str, value: str) -> float:
    return _ABSENT_SAID if _ABSENT.get(attribute) == value else _SAID[attribute]


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
