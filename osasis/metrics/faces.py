"""ID similarity: cosine between a face network's embeddings of a photograph and of its stylization.

The face is looked for in the photograph, and both pictures are cut at that place: structure is kept, and so no method
gains by pictures in which its own result hides the face. Where the photograph shows none there is no similarity.
"""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from osasis.image import to_levels
from osasis.metrics.resize import resized

FACE = 112
"""Side of the crop that ArcFace sees."""
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Where ArcFace wants the eyes, the nose and the corners of the mouth: (x, y), the left of the picture first."""
_SEEN = 320
"""Side at which faces are looked for."""
_SCORE = 0.6

Embed = Callable[[Tensor], Tensor]
"""Crops [B, 3, 112, 112] in [-1, 1] → embeddings [B, E]."""


class Locate(Protocol):
    """Finds the face of each image [B, 3, S, S]: 2×3 maps from the image's pixels to the crop's, or None."""

    def __call__(self, images: Tensor) -> list[npt.NDArray[np.float64] | None]: ...


class ArcFace:
    """An ArcFace network in ONNX, run by onnxruntime; nothing in the file is code."""

    def __init__(self, data: bytes) -> None:
        """Raises ImportError where onnxruntime is not installed; ValueError where the file cannot be used."""
        try:
            runtime = importlib.import_module("onnxruntime")
        except ModuleNotFoundError as error:
            raise ImportError("ArcFace in ONNX needs onnxruntime: pip install 'osasis-on-ray[metrics]'") from error
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session: Any = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"no network that onnxruntime can run: {str(error).splitlines()[0][:200]}") from None
        (self._input, *more), (self._output, *_) = self._session.get_inputs(), self._session.get_outputs()
        if more or list(self._input.shape[1:]) != [3, FACE, FACE]:
            raise ValueError(f"it takes {[i.shape for i in self._session.get_inputs()]}, not [N, 3, {FACE}, {FACE}]")
        self._fixed = self._input.shape[0] if isinstance(self._input.shape[0], int) else 0

    def __call__(self, crops: Tensor) -> Tensor:
        values = crops.float().cpu().numpy()
        parts = np.split(values, len(values) // self._fixed) if self._fixed else [values]
        found = [self._session.run([self._output.name], {self._input.name: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(found)).to(crops.device)


class YuNet:
    """OpenCV's YuNet in ONNX: the largest face of a picture, by five landmarks."""

    def __init__(self, data: bytes) -> None:
        """Raises ValueError where the file cannot be used."""
        model = np.frombuffer(data, np.uint8)
        try:
            self._network: Any = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), (_SEEN, _SEEN), _SCORE)
        except cv2.error as error:
            raise ValueError(f"no YuNet that OpenCV can run: {error.err}") from None

    def __call__(self, images: Tensor) -> list[npt.NDArray[np.float64] | None]:
        pixels = to_levels(resized(images, _SEEN)).movedim(1, -1).contiguous().cpu().numpy()
        scale = images.shape[-1] / _SEEN
        return [self._map(np.ascontiguousarray(picture[:, :, ::-1]), scale) for picture in pixels]

    def _map(self, bgr: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.float64] | None:
        _, faces = self._network.detect(bgr)
        if faces is None:
            return None
        largest = max(faces, key=lambda face: face[2] * face[3])
        return aligned(largest[4:14].reshape(5, 2).astype(np.float64) * scale)


def middle(images: Tensor) -> list[npt.NDArray[np.float64] | None]:
    """Without a detector: the whole picture, as where every photograph is a portrait cut like the base's."""
    scale = FACE / images.shape[-1]
    return [np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]]) for _ in images]


def aligned(landmarks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """The similarity that brings five landmarks [5, 2] nearest to :data:`TEMPLATE` (Umeyama 1991); None: degenerate."""
    source, target = landmarks - landmarks.mean(0), TEMPLATE - TEMPLATE.mean(0)
    spread = float((source**2).sum())
    if spread < 1e-9:
        return None
    # A similarity without reflection in closed form: the best complex factor.
    a, b = (row[:, 0] + 1j * row[:, 1] for row in (source, target))
    factor = (a.conj() * b).sum() / spread
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.concatenate([turn, (TEMPLATE.mean(0) - turn @ landmarks.mean(0))[:, None]], axis=1)


def crops(images: Tensor, maps: list[npt.NDArray[np.float64]]) -> Tensor:
    """Images [B, 3, S, S] at their maps, each [2, 3] → [B, 3, 112, 112] in [-1, 1]."""
    return torch.cat([_crop(image[None], m) for image, m in zip(images, maps, strict=True)])


def _crop(image: Tensor, matrix: npt.NDArray[np.float64]) -> Tensor:
    side = image.shape[-1]
    smaller = round(side * min(1.0, float(np.hypot(matrix[0, 0], matrix[0, 1])))) or 1
    ratio = smaller / side  # of a large picture a small one is made first: cv2 itself would let it alias
    turn = matrix[:, :2] / ratio
    shift = matrix[:, 2] + matrix[:, :2] @ np.full(2, 0.5 / ratio - 0.5)
    pixels = np.ascontiguousarray(resized(image.float(), smaller)[0].movedim(0, -1).cpu().numpy())
    cut = cv2.warpAffine(
        pixels, np.column_stack([turn, shift]), (FACE, FACE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return torch.from_numpy(cut).movedim(-1, 0)[None].clamp(-1, 1).to(image.device)


def id_similarity(photos: Tensor, results: Tensor, locate: Locate, embed: Embed) -> Tensor:
    """Cosines [B] in [-1, 1]; NaN where the photograph shows no face."""
    maps = locate(photos)
    similarity = photos.new_full((len(photos),), float("nan"))
    found = [i for i, m in enumerate(maps) if m is not None]
    if found:
        there: list[npt.NDArray[np.float64]] = [m for m in maps if m is not None]
        a, b = embed(torch.cat([crops(images[found], there) for images in (photos, results)])).chunk(2)
        similarity[found] = F.cosine_similarity(a, b, dim=1).to(similarity)
    return similarity
