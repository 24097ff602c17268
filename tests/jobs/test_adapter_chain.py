"""A style of adapters through all that the catalog and the jobs do with a style, beside the same style whole."""

import io
import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catalog import gc
from catalog.lineage import style_lineage
from catalog.schema import NewStyle
from catalog.store import StyleCatalog
from catalog.verify import Finding
from catalog.verify import verify as looked_at
from cluster.commandline.cli import parse_flags
from cluster.storage import Storage
from jobs.finetuning.styles_file import TrainStylesFlags
from osasis.base import Base, load_base
from osasis.checkpoint import ADAPTER_FORMAT, FORMAT, Style, dump_style, load_style
from osasis.settings import StylizeConfig, train_config
from osasis.strength import mix
from osasis.style_training import StyleTraining
from osasis.stylize import encode, encoding_for, stylize
from tests.support.in_process import InProcess
from tests.support.styles import trained_style
from tests.support.stylize_case import Case
from tests.support.tiny import SIZE

SETTINGS = {"adapter_rank": 4, "spn_width": 16, "learning_rate": 1e-2, "iterations": 3, "start_from": "nearest"}
LATER = datetime.now(UTC) + timedelta(days=40)


def image(seed: int) -> torch.Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """``adapter``, and ``whole`` with the same weights merged; both began from ``monet``."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("chain")
    case = Case.make(Storage.open(folder / "root"), folder, styles=0)
    base = load_base(case.base)
    config = train_config("official", base.spec.train_defaults, SETTINGS | {"content": {"count": 4}})
    training = StyleTraining(base, image(0), config, photo=image(1))
    list(training.run())
    style = training.style("adapter", "official")
    header = style.header.model_copy(update={"format": FORMAT})
    files = {
        "adapter": (training.checkpoint("adapter", "official"), ADAPTER_FORMAT),
        "whole": (dump_style(header, style.unet, style.spn, style.z_style), FORMAT),
    }
    for name, (data, form) in files.items():
        fields: dict[str, Any] = {"base_name": "tiny", "base_fingerprint": base.fingerprint, "checkpoint_format": form}
        fields |= {"train_config": config.model_dump(mode="json"), "started_from": ["monet@1"]}
        StyleCatalog.open(case.root).register(trained_style(case.root, name, data, **fields))
    case.add_pictures(3)
    return case


def findings(catalog: StyleCatalog) -> list[Finding]:
    return [item for item in looked_at(catalog.tables, now=LATER) if isinstance(item, Finding)]


def pixels(case: Case, output: Storage, style: str) -> list[Any]:
    """Of the pictures in a style, by name."""
    names = sorted(name for name in output.list_files("images") if f"{style}@" in name)
    return [np.asarray(Image.open(io.BytesIO(output.read_bytes(f"images/{name}"))), dtype=int) for name in names]


def loaded(case: Case, base: Base, name: str) -> Style:
    return load_style(Path(StyleCatalog.open(case.root).show(name).checkpoint_uri), base)


def test_an_adapter_and_the_same_style_whole_give_the_same_pictures(case: Case) -> None:
    tally = case.run(styles="adapter,whole,none", execute=InProcess.connected)
    assert tally.counts()["done"] == 9
    output = case.root.child("out")
    adapter, whole, none = (pixels(case, output, name) for name in ("adapter", "whole", "none"))
    assert len(adapter) == 3
    for ours, same, plain in zip(adapter, whole, none, strict=True):
        assert np.abs(ours - same).max() <= 2  # both files are float16
        assert np.abs(ours - plain).mean() > 5


def test_an_exported_adapter_stylizes_alike_where_it_is_imported(case: Case, tmp_path: Path) -> None:
    catalog = StyleCatalog.open(case.root)
    bundle = catalog.export_bundle("adapter", str(tmp_path / "styles.tar"))
    assert [style.style.checkpoint_format for style in bundle.styles] == [ADAPTER_FORMAT]
    other = StyleCatalog.open(Storage.open(tmp_path / "other"))
    (there,) = other.import_bundle(str(tmp_path / "styles.tar"), any_base=True)
    here = catalog.show("adapter")
    assert (there.checkpoint_sha256, there.started_from) == (here.checkpoint_sha256, ["monet@1"])
    assert findings(other) == []
    places = {name: str(tmp_path / name) for name in ("here", "there")}
    case.run(styles="adapter", output=places["here"], execute=InProcess.connected)
    case.run(styles="adapter", storage=other.storage.uri, output=places["there"], execute=InProcess.connected)
    pairs = [pixels(case, Storage.open(place), "adapter") for place in places.values()]
    assert all(np.array_equal(*pair) for pair in zip(*pairs, strict=True))


def test_the_lineage_names_the_versions_that_training_began_from(case: Case) -> None:
    catalog = StyleCatalog.open(case.root)
    lineage = style_lineage(catalog, catalog.show("adapter"))
    assert (lineage["checkpoint"]["format"], lineage["started_from"]) == (ADAPTER_FORMAT, ["monet@1"])
    assert lineage["training"]["start_from"] == "nearest"  # what was asked for
    again = parse_flags(TrainStylesFlags, shlex.split(lineage["command"])[2:]).train
    assert (again.start_from, again.adapter_rank) == ("monet@1", 4)


def test_adapters_of_the_catalog_mix_with_whole_styles(case: Case) -> None:
    base = load_base(case.base)
    adapter, whole = (loaded(case, base, name) for name in ("adapter", "whole"))
    settings = StylizeConfig(encode_steps=10, decode_steps=5)
    code = encode(base, image(5), encoding_for(adapter, settings))
    alone = stylize(adapter, code, settings)
    mixed = stylize(mix(base, [(adapter, 0.5), (whole, 0.5)]), code, settings)
    assert (alone - mixed).abs().max() < 0.02


def test_a_deleted_adapter_is_freed_and_nothing_else(case: Case) -> None:
    catalog = StyleCatalog.open(case.root)
    assert findings(catalog) == []
    data = Path(catalog.show("adapter").checkpoint_uri).read_bytes()
    fields = json.loads(catalog.show("adapter").model_dump_json(include=set(NewStyle.model_fields)))
    uris = {"checkpoint_uri", "reference_uri", "photo_uri", "preview_uri", "style_id"}
    again = {name: value for name, value in fields.items() if name not in uris}
    version = catalog.register(trained_style(case.root, "gone", data, **again))
    catalog.delete("gone")
    report = gc.collect(catalog.tables, timedelta(0))
    assert (report.versions, report.orphans) == ([str(version)], [])
    assert not Path(version.checkpoint_uri).exists()
    assert findings(catalog) == []
    assert load_style(Path(catalog.show("adapter").checkpoint_uri), load_base(case.base)).deltas
