"""Inputs from the field that code gets wrong, stops at or pays too much for, each with what must come of it."""

import io
import os
import pickle
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalog.output_names import relative_key
from cluster.commandline.cli import ConfigError
from cluster.storage import Storage
from cluster.storage.tables import UnsafeTable, open_parquet
from jobs.pretraining.sources import open_source as open_training_source
from jobs.streaming.listing import open_source as open_stylize_source
from osasis.errors import ImageRejected
from osasis.image import decode_image
from osasis.imaging.profiles import ADOBE_RGB, BT2020, DISPLAY_P3, bt709_curve, gamma_curve, matrix_profile, srgb_curve
from tests.support import hostile_pictures as make
from tests.support.hostile_pictures import SIDE, Rgb, chunk, flat, png, saved

SAND: Rgb = (200, 120, 60)
P3_SAND = make.expected_srgb(SAND, DISPLAY_P3, srgb_curve)
ADOBE_SAND = make.expected_srgb(SAND, ADOBE_RGB, gamma_curve(563 / 256))
MIDDLE_GREY = (188, 188, 188)
"""128 of 255 as linear light."""

SKY: Rgb = (90, 140, 200)
"""The pixels of :func:`png`."""


@dataclass(frozen=True)
class Shown:
    """Decoded, the middle within ``within`` levels of ``colour``, with a note that has these words, or none."""

    colour: Rgb
    note: str | None = None
    within: int = 2


@dataclass(frozen=True)
class Refused:
    """Rejected with this kind, in these words."""

    kind: str
    words: str


def _with_exif(colour: Rgb, tags: dict[int, dict[int, Any]]) -> bytes:
    exif = Image.Exif()
    for directory, values in tags.items():
        exif.get_ifd(directory).update(values)
    return saved(flat(colour), "JPEG", exif=exif, quality=100, subsampling=0)


def _lossy(colour: Rgb, kind: str, profile: bytes) -> bytes:
    return saved(flat(colour), kind, icc_profile=profile, quality=100)


def _transparent_grey(depth: int, value: int, key: int) -> bytes:
    row = (
        np.full(SIDE, value, ">u2" if depth == 16 else "u1").tobytes()
        if depth >= 8
        else bytes([value * 17] * (SIDE // 2))
    )
    return png(chunk(b"tRNS", key.to_bytes(2)), pixels=row * SIDE, depth=depth, colour_type=0)


def _bomb() -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()])


def _bomb_png() -> bytes:
    return (
        png()
        .replace(SIDE.to_bytes(4) * 2, (9000).to_bytes(4) * 2)
        .replace(png()[29:33], zlib.crc32(b"IHDR" + (9000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])).to_bytes(4))
    )


def _jpeg_middle() -> Rgb:
    pixel = Image.open(io.BytesIO(make.jpeg_photo())).getpixel((32, 32))
    return tuple(pixel)  # type: ignore[arg-type, return-value]


GRADIENT = make.gradient()
MIDDLE: Rgb = tuple(int(v) for v in GRADIENT[SIDE // 2, SIDE // 2])  # type: ignore[assignment]
DEEP = GRADIENT.astype(np.uint16) * 257
GREY = GRADIENT[..., 0]
GREY_MIDDLE: Rgb = (int(GREY[SIDE // 2, SIDE // 2]),) * 3
CYAN = Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0))
P3_SKY = make.expected_srgb(SKY, DISPLAY_P3, srgb_curve)
LINEAR_P3 = matrix_profile(DISPLAY_P3, gamma_curve(1.0))

Case = tuple[Callable[[], bytes], Shown | Refused]

COLOURS: dict[str, Case] = {
    "Display P3 in PNG": (lambda: saved(flat(SAND), "PNG", icc_profile=make.P3_PROFILE), Shown(P3_SAND)),
    "Display P3 in JPEG": (lambda: _lossy(SAND, "JPEG", make.P3_PROFILE), Shown(P3_SAND, within=4)),
    "Display P3 in WebP": (lambda: _lossy(SAND, "WEBP", make.P3_PROFILE), Shown(P3_SAND, within=5)),
    "Display P3 in TIFF": (lambda: saved(flat(SAND), "TIFF", icc_profile=make.P3_PROFILE), Shown(P3_SAND)),
    "Display P3 in BMP": (lambda: make.bmp_with_profile(SAND, make.P3_PROFILE), Shown(P3_SAND)),
    "Display P3 in GIF": (lambda: make.gif_with_profile(SAND, make.P3_PROFILE), Shown(P3_SAND)),
    "Display P3 of a palette": (
        lambda: saved(flat(SAND).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", icc_profile=make.P3_PROFILE),
        Shown(P3_SAND),
    ),
    "Display P3, half transparent": (
        lambda: saved(Image.merge("RGBA", (*flat(SAND).split(), flat(128))), "PNG", icc_profile=make.P3_PROFILE),
        Shown(tuple(round((v * 128 + 255 * 127) / 255) for v in P3_SAND)),  # type: ignore[arg-type]
    ),
    "ProPhoto, whose white is D50": (
        lambda: saved(flat(SAND), "PNG", icc_profile=matrix_profile(make.PROPHOTO, gamma_curve(1.8))),
        Shown(make.expected_srgb(SAND, make.PROPHOTO, gamma_curve(1.8))),
    ),
    "Adobe RGB by EXIF alone": (lambda: _with_exif(SAND, {0x8769: {0xA001: 2}}), Shown(ADOBE_SAND, within=4)),
    "grey in linear light": (
        lambda: saved(flat(128), "PNG", icc_profile=make.linear_grey_profile()),
        Shown(MIDDLE_GREY),
    ),
    "deep grey in linear light": (
        lambda: png(
            make.iccp(make.linear_grey_profile()),
            pixels=np.full(SIDE * SIDE, 128 * 257, ">u2").tobytes(), depth=16, colour_type=0,
        ),
        Shown(MIDDLE_GREY),
    ),
    "grey with opacity in linear light": (
        lambda: saved(Image.merge("LA", (flat(128), flat(255))), "PNG", icc_profile=make.linear_grey_profile()),
        Shown(MIDDLE_GREY),
    ),
    "grey with a profile of RGB": (lambda: saved(flat(128), "PNG", icc_profile=LINEAR_P3), Shown(MIDDLE_GREY)),
    "press CMYK": (
        lambda: saved(CYAN, "TIFF", icc_profile=make.cmyk_profile((60, 30, 20))),
        Shown(make.expected_from_lab(60, 30, 20), within=3),
    ),
    "CMYK without a profile": (
        lambda: saved(CYAN, "TIFF"), Shown((0, 255, 255), "CMYK without"),
    ),
    "CIE Lab": (
        lambda: make.tiff(np.full((SIDE, SIDE, 3), [153, 30, 20], np.uint8), 8),
        Shown(make.expected_from_lab(60, 30, 20)),
    ),
    "a profile of CMYK on RGB": (
        lambda: saved(flat(SAND), "PNG", icc_profile=make.cmyk_profile((60, 30, 20))),
        Shown(SAND, "for CMYK, and the pixels are RGB"),
    ),
    "a profile of noise": (
        lambda: saved(flat(SAND), "TIFF", icc_profile=b"\0" * 16 + b"RGB " + bytes(200)), Shown(SAND, "damaged"),
    ),
    "a profile cut short": (
        lambda: saved(flat(SAND), "TIFF", icc_profile=make.P3_PROFILE[:200]), Shown(SAND, "not used"),
    ),
    "a compressed profile cut short": (
        lambda: png(chunk(b"iCCP", b"p\0\0" + zlib.compress(make.P3_PROFILE)[:50])), Shown(SKY, "iCCP cannot be read"),
    ),
    "a profile of a gigabyte": (
        lambda: png(chunk(b"iCCP", b"p\0\0" + _bomb())), Shown(SKY, "more than 8388608 bytes"),
    ),
    "cICP of Display P3": (lambda: png(make.cicp(12, 13, 0, 1)), Shown(P3_SKY)),
    "cICP of BT.2020": (lambda: png(make.cicp(9, 1, 0, 1)), Shown(make.expected_srgb(SKY, BT2020, bt709_curve))),
    "cICP beside iCCP": (lambda: png(make.iccp(make.P3_PROFILE), make.cicp(1, 13, 0, 1)), Shown(SKY)),
    "cICP of PQ": (lambda: png(make.cicp(9, 16, 0, 1)), Refused("unsupported", "high dynamic range (PQ)")),
    "cICP of HLG": (lambda: png(make.cicp(9, 18, 0, 1)), Refused("unsupported", "high dynamic range (HLG)")),
    "cICP that nobody knows": (lambda: png(make.cicp(77, 1, 0, 1)), Refused("unsupported", "cICP 77/1/0/1")),
    "gAMA of linear light": (
        lambda: png(make.gama(100_000), pixels=bytes([128]) * SIDE * SIDE, colour_type=0), Shown(MIDDLE_GREY),
    ),
    "cHRM of Display P3": (
        lambda: png(make.gama(45455), make.chrm(DISPLAY_P3)), Shown(P3_SKY),
    ),
    "sRGB beside gAMA": (lambda: png(chunk(b"sRGB", b"\0"), make.gama(100_000)), Shown(SKY)),
    "gAMA of zero": (lambda: png(make.gama(0)), Shown(SKY, "gAMA is 0")),
}  # fmt: skip

PNGS: dict[str, Case] = {
    "text of 2 MB": (lambda: png(chunk(b"iTXt", b"k\0\0\0\0\0" + b"x" * (2 << 20))), Shown(SKY)),
    "compressed text of 2 MB": (lambda: png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 << 20)))), Shown(SKY)),
    "text with a wrong checksum": (lambda: png(chunk(b"tEXt", b"k\0x", wrong=True)), Shown(SKY, "tEXt is wrong")),
    "no end marker": (lambda: png(end=False), Shown(SKY, "IEND) is missing")),
    "cut after the pixels": (lambda: png()[:-7], Shown(SKY, "IEND) is missing")),
    "cut in the pixels": (lambda: png()[:-20], Refused("truncated", "ends inside its chunk IDAT")),
    "cut in the header": (lambda: png()[:20], Refused("truncated", "ends inside its chunk IHDR")),
    "pixels with a wrong checksum": (
        lambda: png().replace(b"IDAT", b"IDAT", 1)[:-16] + b"\0\0\0\0" + chunk(b"IEND", b""),
        Refused("damaged", "checksum of its chunk IDAT"),
    ),
    "an unknown chunk that is needed": (lambda: png(chunk(b"NEED", b"")), Refused("damaged", "NEED is not known")),
    "a hundred thousand chunks": (lambda: png(chunk(b"prVt", b"") * 100_001), Refused("too-costly", "100000 chunks")),
    "deep grey with a transparent value": (lambda: _transparent_grey(16, 1000, 1000), Shown((255, 255, 255))),
    "deep grey with another transparent value": (lambda: _transparent_grey(16, 25700, 1000), Shown((100, 100, 100))),
    "4-bit grey with a transparent value": (lambda: _transparent_grey(4, 5, 5), Shown((255, 255, 255))),
    "deep RGB with a transparent colour": (
        lambda: png(chunk(b"tRNS", bytes(6)), pixels=bytes(6 * SIDE * SIDE), depth=16),
        Refused("unsupported", "16 bits"),
    ),
    "a bomb of pixels": (lambda: _bomb_png(), Refused("too-large", "is more than 64000000 pixels")),
}  # fmt: skip

JPEGS: dict[str, Case] = {
    "no end marker": (lambda: make.jpeg_photo()[:-2], Shown(_jpeg_middle(), "EOI) is missing")),
    "no end marker, progressive": (
        lambda: make.jpeg_photo(progressive=True)[:-2],
        Shown(_jpeg_middle(), "EOI) is missing", within=4),
    ),
    "cut in the middle": (lambda: make.jpeg_photo()[:-200], Refused("truncated", "ends before the picture does")),
    "cut between two scans": (make.cut_between_scans, Refused("truncated", "ends before the picture does")),
    "cut in the headers": (lambda: make.jpeg_photo()[:100], Refused("truncated", "JPEG")),
    "a thousand scans": (lambda: make.many_scans(1000), Refused("too-costly", "101 scans or more")),
    "12 bits": (lambda: make.with_frame(1, 12), Refused("unsupported", "12 bits a channel")),
    "lossless": (lambda: make.with_frame(3), Refused("unsupported", "SOF3")),
}

TIFFS: dict[str, Case] = {
    "16 bits in separate planes": (lambda: make.tiff(DEEP, 2, planar=True), Shown(MIDDLE)),
    "16 bits in separate planes, big-endian": (lambda: make.tiff(DEEP, 2, planar=True, order=">"), Shown(MIDDLE)),
    "8 bits in separate planes": (lambda: make.tiff(GRADIENT, 2, planar=True), Shown(MIDDLE)),
    "deep grey, white is zero": (lambda: make.tiff(65535 - DEEP[..., 0], 0), Shown(GREY_MIDDLE)),
    "deep grey, white is zero, big-endian": (lambda: make.tiff(65535 - DEEP[..., 0], 0, order=">"), Shown(GREY_MIDDLE)),
    "grey of 12 bits": (lambda: make.twelve_bits(GREY.astype(np.uint32) * 4095 // 255), Shown(GREY_MIDDLE)),
    "signed bytes": (lambda: make.tiff(GREY, 1, t339=2), Refused("unsupported", "8 bits signed")),
    "signed numbers": (lambda: make.tiff(DEEP[..., 0], 1, t339=2), Refused("unsupported", "signed")),
    "floating-point numbers": (lambda: make.tiff(GREY.astype("f4"), 1, t339=3), Refused("unsupported", "floating")),
    "raw sensor data": (lambda: make.tiff(GREY, 32803), Refused("unsupported", "raw sensor data")),
    "ICC Lab": (lambda: make.tiff(GRADIENT, 9), Refused("unsupported", "ICC Lab")),
    "JPEG 2000 inside": (lambda: make.tiff(GRADIENT, 2, t259=34712), Refused("unsupported", "JPEG 2000")),
    "one huge tile": (
        lambda: make.tiff_file({256: [64], 257: [64], 258: [8], 259: [8], 262: [1], 277: [1], 322: [48_000],
                                323: [48_000], 324: [8], 325: [10]}),
        Refused("too-costly", "tiles of 48000×48000"),
    ),
    "more bytes than pixels": (
        lambda: make.tiff_file({256: [8000], 257: [7000], 258: [16] * 3, 259: [5], 262: [2], 273: [8], 277: [3],
                                278: [7000], 279: [10]}),
        Refused("too-large", "6 bytes a pixel"),
    ),
    "a strip table of other length": (
        lambda: make.tiff(DEEP, 2, planar=True).replace(b"\x11\x01\x04\0\3", b"\x11\x01\x04\0\2"),
        Refused("damaged", "planes"),
    ),
    "cut in the directory": (lambda: make.tiff(GRADIENT, 2)[:-40], Refused("truncated", "header")),
    "lying on its side": (
        lambda: make.tiff(np.full((SIDE, 2 * SIDE, 3), SAND, np.uint8), 2, planar=True, t274=6), Shown(SAND),
    ),
}  # fmt: skip

PICTURES = {
    f"{group}: {name}": case
    for group, cases in {"colour": COLOURS, "PNG": PNGS, "JPEG": JPEGS, "TIFF": TIFFS}.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_shown_rightly_or_refused_in_words(name: str) -> None:
    data, expected = PICTURES[name][0](), PICTURES[name][1]
    start = time.thread_time()
    if isinstance(expected, Refused):
        with pytest.raises(ImageRejected) as caught:
            decode_image(data)
        assert (caught.value.kind, expected.words in str(caught.value)) == (expected.kind, True), str(caught.value)
    else:
        image = decode_image(data)
        pixel = np.array(image.getpixel((image.width // 2, image.height // 2)))
        assert np.abs(pixel - expected.colour).max() <= expected.within, (pixel, expected.colour)
        notes = image.info["notes"]
        assert len(notes) == (expected.note is not None), notes
        assert expected.note is None or expected.note in notes[0]
    assert time.thread_time() - start < 2


def test_a_decoder_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(ImageRejected, match="takes more than 0 seconds") as caught:
        decode_image(png(), max_seconds=0)
    assert caught.value.kind == "too-costly"


class _Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def _pickled(trace: Path) -> pa.Array:
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType  # registers itself with Arrow

    return pa.ExtensionArray.from_storage(
        ArrowPythonObjectType(), pa.array([pickle.dumps(_Evil(trace))], pa.large_binary())
    )


TABLES: dict[str, Callable[[pa.Array], pa.Table]] = {
    "a label": lambda evil: pa.table({"image": [b"x"], "uri": ["a.png"], "smile": evil}),
    "the image": lambda evil: pa.table({"image": evil, "uri": ["a.png"]}),
    "the URI": lambda evil: pa.table({"image": [b"x"], "uri": evil}),
    "within a struct": lambda evil: pa.table(
        {"image": [b"x"], "uri": ["a.png"], "more": pa.StructArray.from_arrays([evil], names=["inner"])}
    ),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_of_pickled_objects_is_refused_and_runs_nothing(what: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    pq.write_table(TABLES[what](_pickled(trace)), tmp_path / "evil.parquet")
    file = Storage.open(tmp_path / "evil.parquet")
    with pytest.raises(UnsafeTable, match=r"evil\.parquet .*ray\.data\.arrow_pickled_object"):
        open_parquet(file)
    with pytest.raises(ConfigError, match="arrow_pickled_object"):
        open_training_source(file.uri, None, None, "image", 4)
    with pytest.raises(ConfigError, match="arrow_pickled_object"):
        open_stylize_source(file.uri, "uri")
    assert not trace.exists()


def test_types_that_arrow_remembers_are_read_as_parquets_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the name of the extension type is not seen, no code of it runs."""
    trace = tmp_path / "ran"
    pq.write_table(TABLES["a label"](_pickled(trace)), tmp_path / "evil.parquet")
    monkeypatch.setattr("cluster.storage.tables.extension_names", lambda footer: [])
    table = open_parquet(Storage.open(tmp_path / "evil.parquet")).read()
    assert table.schema.field("smile").type == pa.binary()
    assert table.to_pylist()[0]["uri"] == "a.png"
    assert not trace.exists()


NAMES = [
    "..",
    "a/../../b.png",
    "a\\b.png",
    "photo.jpg?w=600",
    "x" * 300 + ".png",
    "caf\udce9.jpg",
    "new\nline.png",
    "-rf",
]


def test_every_name_gives_a_safe_key_of_its_own(tmp_path: Path) -> None:
    keys = [relative_key(name) for name in NAMES]
    assert len(set(keys)) == len(NAMES)
    for key in keys:
        assert key.isascii()
        assert ".." not in key.split("/")
        (tmp_path / "out" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / f"{key}.png").write_bytes(b"")


def test_sixty_hostile_inputs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"pictures": len(PICTURES) + 1, "tables": len(TABLES), "names": len(NAMES)}
    with capsys.disabled():
        print(f"\nhostile inputs: {sum(counts.values())} ({', '.join(f'{n} {kind}' for kind, n in counts.items())})")
    assert sum(counts.values()) >= 60
