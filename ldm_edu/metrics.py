"""How close is a reconstruction, and how alike are two sets of pictures.

PSNR and SSIM compare images one by one. The others compare sets of feature vectors, (N, D),
and know nothing of the network they come from: such a number means something only beside its
feature space, its N, and the value that two sets of real pictures reach.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm_edu.errors import InputError

_WINDOW, _SIGMA = 11, 1.5  # of SSIM, in pixels
_ROWS = 2000  # of a distance matrix held at once


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: (B, 3, H, W) in [-1, 1] twice -> (B,).

    10 log10(2^2 / mean squared error), the peak being the range of the values. Identical images
    give infinity. Raises InputError if the shapes differ, or for bytes.
    """
    _check_images(x, x_hat)
    return 10 * torch.log10(4 / (x - x_hat).square().flatten(1).mean(1))


def ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    """Structural similarity of each image: (B, C, H, W) in [-1, 1] twice -> (B,), at most 1.

    Wang et al. 2004 (IEEE Trans. Image Processing 13), eq. 13, with their constants: a Gaussian
    window of 11x11 pixels and sigma 1.5 where it lies wholly inside, K = (0.01, 0.03), a range
    of 2. Mean over windows and channels. Raises InputError as `psnr`, or below 11x11.
    """
    _check_images(x, x_hat)
    if min(x.shape[2:]) < _WINDOW:
        raise InputError(f"SSIM needs at least 11x11 pixels, found {tuple(x.shape[2:])}")
    offset = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    window = torch.softmax(-(offset**2) / (2 * _SIGMA**2), dim=0)  # a Gaussian of sum 1
    moments = torch.stack([x, x_hat, x * x, x_hat * x_hat, x * x_hat])
    rows = F.conv2d(moments.reshape(-1, 1, *x.shape[2:]), window.view(1, 1, -1, 1))
    means = F.conv2d(rows, window.view(1, 1, 1, -1))
    mu, mu_hat, xx, yy, xy = means.reshape(*moments.shape[:3], *means.shape[2:])
    variances, covariance = (xx - mu**2) + (yy - mu_hat**2), xy - mu * mu_hat
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mu * mu_hat + c1) / (mu**2 + mu_hat**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).flatten(1).mean(1)


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Frechet distance of the Gaussians through two sets, (N, D) and (M, D), in float64.

    |mu_a - mu_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) (Dowson & Landau 1982; Heusel et al.
    2017, arXiv 1706.08500, eq. 6). It is a *squared* distance, and biased upwards by about 1/N:
    compare at one N. Raises InputError for other shapes or values that are not finite.
    """
    a, b = _features(features_a, features_b, least=2)
    A, B = (torch.atleast_2d(torch.cov(s.T)) for s in (a, b))
    values, vectors = torch.linalg.eigh(A)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # A^1/2
    cross = torch.linalg.eigvalsh(root @ B @ root).clamp(min=0).sqrt().sum()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    return (mean + A.trace() + B.trace() - 2 * cross).item()


def kernel_distance(
    features_a: Tensor, features_b: Tensor, subsets: int = 50, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel distance: (mean, standard deviation) over random subsets of both sets.

    KID (Binkowski et al. 2018, arXiv 1801.01401, sec. 4): the unbiased squared MMD (Gretton et
    al. 2012, eq. 3) with the kernel (x.y / D + 1)^3, so that equal distributions give 0 on
    average at any N. A subset takes `size` rows of each, fewer if a set has fewer. The spread
    is that of subsets, which overlap. Raises InputError as `frechet_distance`.
    """
    if subsets < 1 or size < 2:
        raise InputError(f"need subsets >= 1 and size >= 2, found {subsets} and {size}")
    a, b = _features(features_a, features_b, least=2)
    size = min(size, len(a), len(b))
    generator = torch.Generator().manual_seed(seed)
    found = torch.tensor(
        [_mmd(*(_some(s, size, generator) for s in (a, b))) for _ in range(subsets)]
    )
    return found.mean().item(), found.std(correction=0).item()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Shares of fakes that look real, and of reals that the fakes cover: both (N, D).

    Kynkaanniemi et al. 2019 (arXiv 1904.06991, eq. 1-2): a set's manifold is the union of balls
    around its points, each reaching to the point's k-th nearest neighbour in the set. Raises
    InputError unless both sets have one N, above k.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, found {k}")
    real, fake = _features(real, fake, least=k + 1)
    if len(real) != len(fake):
        raise InputError(f"real has N = {len(real)}, fake N = {len(fake)}: take one N")
    return _inside(fake, real, k), _inside(real, fake, k)


class Nearest(NamedTuple):
    """For each of N vectors the closest one of a reference: distance and index, each (N,)."""

    distance: Tensor
    index: Tensor


def nearest(features: Tensor, reference: Tensor, skip: Tensor | None = None) -> Nearest:
    """The Euclidean nearest neighbour of features (N, D) in reference (M, D), in pieces.

    reference: of any dtype, read as that of the features. skip: (N,) the one row of the
    reference that does not count, such as a picture's own. Raises InputError for other shapes
    or values that are not finite.
    """
    same = features.ndim == reference.ndim == 2 and features.shape[1] == reference.shape[1]
    if not same or len(reference) < 1 + (skip is not None):
        found = f"{tuple(features.shape)} and {tuple(reference.shape)}"
        raise InputError(f"need features (N, D) and neighbours (M, D), found {found}")
    _check_finite(features, reference)
    best = features.new_full((len(features),), torch.inf)
    index = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, len(reference), _ROWS):
        squared = _squared(features, reference[start : start + _ROWS].to(features))
        if skip is not None:
            places = torch.arange(start, start + squared.shape[1])
            own = (skip.cpu()[:, None] == places).to(squared.device)
            squared.masked_fill_(own, torch.inf)
        least, where = squared.min(1)
        index = torch.where(least < best, where + start, index)
        best = torch.minimum(least, best)
    # the expanded square is inexact where it is small
    found = index.to(reference.device).split(_ROWS)
    pairs = zip(features.split(_ROWS), found, strict=True)
    distances = [(f - reference[i].to(f)).norm(dim=1) for f, i in pairs]
    return Nearest(torch.cat(distances), index)


def _mmd(x: Tensor, y: Tensor) -> float:
    m, d = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1) ** 3

    def others(a: Tensor) -> Tensor:  # unbiased: no vector meets itself
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (m * (m - 1))

    return (others(x) + others(y) - 2 * kernel(x, y).mean()).item()


def _some(features: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=generator)[:size]]


def _inside(points: Tensor, manifold: Tensor, k: int) -> float:
    parts = manifold.split(_ROWS)
    # the nearest of all is the point itself
    radii = torch.cat(
        [_squared(p, manifold).topk(k + 1, largest=False).values[:, k] for p in parts]
    )
    hits = [(_squared(p, manifold) <= radii).any(1) for p in points.split(_ROWS)]
    return torch.cat(hits).double().mean().item()


def _squared(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    return (lengths - 2 * a @ b.T).clamp(min=0)


def _features(*sets: Tensor, least: int) -> list[Tensor]:
    shapes = " and ".join(str(tuple(s.shape)) for s in sets)
    if any(s.ndim != 2 or len(s) < least or s.shape[1] != sets[0].shape[1] for s in sets):
        raise InputError(f"need two sets (N, D) of one D and N >= {least}, found {shapes}")
    _check_finite(*sets)
    return [s.detach().cpu().double() for s in sets]


def _check_finite(*sets: Tensor) -> None:
    if not all(s.isfinite().all() for s in sets if s.is_floating_point()):
        shapes = " and ".join(str(tuple(s.shape)) for s in sets)
        raise InputError(f"features of shapes {shapes} hold values that are not finite")


def _check_images(x: Tensor, x_hat: Tensor) -> None:
    if x.shape != x_hat.shape:
        raise InputError(f"images have shapes {tuple(x.shape)} and {tuple(x_hat.shape)}")
    if not (x.is_floating_point() and x_hat.is_floating_point()):
        raise InputError(f"images must be float in [-1, 1], found {x.dtype} and {x_hat.dtype}")
