"""Structure that a stylized picture kept, measured on its pixels."""

import torch.nn.functional as F
from torch import Tensor


def gradient_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Structure kept: correlation of the edges (luminance gradient magnitudes) of two pictures.

    Images [B, 3, S, S] in [-1, 1] → [B] in [-1, 1]; 1 for equal structure, near 0 for unrelated pictures. Edges are
    taken after a blur of one pixel, so that brush strokes weigh less than outlines.
    """
    x, y = _edges(a), _edges(b)
    x, y = (e - e.mean(1, keepdim=True) for e in (x, y))
    return F.cosine_similarity(x, y, dim=1)


def structural_similarity(a: Tensor, b: Tensor, window: int = 8) -> Tensor:
    """SSIM of the luminance of two pictures, over all ``window`` × ``window`` squares (Wang et al. 2004, Eq. 13).

    Images [B, 3, S, S] in [-1, 1] → [B]; 1 for equal pictures. It asks for equal tones too, which a style changes:
    beside :func:`gradient_correlation` it tells lost structure from changed paint.
    """
    x, y = _luminance(a), _luminance(b)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mu_x.square(), mean(y * y) - mu_y.square()
    covariance = mean(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the range of values is 2
    ssim = (2 * mu_x * mu_y + c1) * (2 * covariance + c2)
    return (ssim / ((mu_x.square() + mu_y.square() + c1) * (var_x + var_y + c2))).mean((1, 2, 3))


def _edges(images: Tensor) -> Tensor:
    smooth = F.avg_pool2d(F.pad(_luminance(images), (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    dx = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    dy = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    return (dx.square() + dy.square()).sqrt().flatten(1)


def _luminance(images: Tensor) -> Tensor:
    return (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
