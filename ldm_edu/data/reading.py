"""What the judge measures in a picture: its background, its blobs, and how each blob compares
with the ideal shapes.

Nothing here knows the scene or calls the renderer. A pixel is explained as a mixture:
background + cover * (color - background). What that leaves is the residual, in gray levels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm_edu.data.scenes import BACKGROUNDS, COLORS, SHAPES

NEAR = 40.0  # gray levels: pixels this close to a named background belong to it
FAR = 50.0  # gray levels from the background: pixels this far belong to an object
MOST = 2  # regions that a readable picture may have
FRINGE = 2  # pixels around an object that its soft edge may touch
SHARPNESS = (0.0, 0.6)  # Gaussian sigma in pixels of the templates: crisp, and decoded
AREA = {  # of a shape of radius 1, closed form
    "circle": 3.14159,
    "square": 4 * 0.88**2,
    "triangle": 3 * 3**0.5 * 0.55**2,
    "ring": 3.14159 * (1 - 0.5**2),
    "cross": 8 * 0.36 - 4 * 0.36**2,
}
OUTLINE = {  # length for radius 1, closed form
    "circle": 2 * 3.14159,
    "square": 8 * 0.88,
    "triangle": 6 * 3**0.5 * 0.55,
    "ring": 2 * 3.14159 * (1 + 0.5),
    "cross": 8.0,
}


class Ground(NamedTuple):
    """The background of N pictures."""

    name: Tensor  # (N,) index into BACKGROUNDS
    color: Tensor  # (N, 3) mean of its pixels, 0..255
    error: Tensor  # (N,) distance of that mean from the named color
    share: Tensor  # (N,) fraction of the picture that it covers
    slope: Tensor  # (N,) largest difference between the means of its quadrants
    regions: Tensor  # (N,) number of connected foreground regions
    stain: Tensor  # (N,) largest 3x3 mean departure from `color` away from objects


class Blobs(NamedTuple):
    """The M connected foreground regions of those pictures that have at most two."""

    image: Tensor  # (M,) which picture
    core: Tensor  # (M, 32, 32) bool, the region
    support: Tensor  # (M, 32, 32) bool, the region and its fringe


class Reading(NamedTuple):
    """M blobs compared with the palette and with the ideal shapes."""

    color: Tensor  # (M,) index into COLORS
    residual: Tensor  # (M,) RMS over the support, gray levels
    patch: Tensor  # (M,) largest 3x3 mean of the residual within the core: a second color
    strength: Tensor  # (M,) cover of the 4 fullest pixels: 1 = the full color
    center: Tensor  # (M, 2) x, y in pixels
    radius: Tensor  # (M, S) in pixels, if it were shape s
    misfit: Tensor  # (M, S) pixels by which the outline departs from shape s, on average


def find_blobs(images: Tensor) -> tuple[Ground, Blobs]:
    """Splits float images (N, 3, 32, 32) in 0..255 into background and connected regions."""
    names = images.new_tensor(list(BACKGROUNDS.values()))  # (K, 3)
    near = (images[:, None] - names[None, :, :, None, None]).norm(dim=2) < NEAR
    name = near.sum((2, 3)).argmax(1)
    own = near[torch.arange(len(images)), name]  # (N, 32, 32)
    color = _mean(images, own)
    departure = images - color[:, :, None, None]
    regions, blobs = _regions(departure.norm(dim=1) > FAR)
    occupied = torch.zeros_like(own).index_put_((blobs.image,), blobs.support, accumulate=True)
    ground = Ground(
        name=name,
        color=color,
        error=(color - names[name]).norm(dim=1),
        share=own.float().mean((1, 2)),
        slope=_slope(images, own & ~occupied, color),
        regions=regions,
        stain=_largest_patch(departure, ~occupied),
    )
    return ground, blobs


def read_blobs(images: Tensor, ground: Ground, blobs: Blobs) -> Reading:
    """Measures color, place, size and shape of each blob."""
    departure = (images - ground.color[:, :, None, None])[blobs.image]  # (M, 3, 32, 32)
    axis = images.new_tensor(list(COLORS.values())) - ground.color[blobs.image][:, None]
    cover = (
        torch.einsum("mchw,mkc->mkhw", departure, axis) / axis.square().sum(2)[..., None, None]
    )
    rest = departure[:, None] - cover.clamp(0, 1)[:, :, None] * axis[..., None, None]
    color = (rest.norm(dim=2) * blobs.core[:, None]).sum((2, 3)).argmin(1)
    pick = torch.arange(len(color))
    cover, rest = cover[pick, color] * blobs.support, rest[pick, color]
    area = cover.sum((1, 2)).clamp(min=1e-3)
    pixel = torch.arange(images.shape[-1]) + 0.5
    center = torch.stack([(cover.sum(1) * pixel).sum(1), (cover.sum(2) * pixel).sum(1)], 1)
    center = center / area[:, None]
    radius = torch.stack([(area / AREA[shape]).sqrt() for shape in SHAPES], 1)
    return Reading(
        color=color,
        residual=_mean(rest.square().sum(1, keepdim=True), blobs.support)[:, 0].sqrt(),
        patch=_largest_patch(rest, blobs.core),
        strength=cover.flatten(1).topk(4).values.mean(1),
        center=center,
        radius=radius,
        misfit=_misfit(cover.clamp(0, 1), center, radius),
    )


def _regions(mask):
    """8-connected regions: each pixel takes the largest label among its neighbors."""
    label = torch.arange(1, mask[0].numel() + 1.0).view(mask[0].shape) * mask
    while True:
        grown = F.max_pool2d(label[:, None], 3, 1, 1)[:, 0] * mask
        if torch.equal(grown, label):
            break
        label = grown
    values = [row.unique() for row in label.flatten(1)]
    values = [row[row > 0] for row in values]
    number = torch.tensor([len(row) for row in values])
    found = [(i, v) for i, row in enumerate(values) for v in row if len(row) <= MOST]
    image = torch.tensor([i for i, _ in found], dtype=torch.long)
    value = torch.tensor([v for _, v in found]).view(-1, 1, 1)
    core = label[image] == value  # (M, 32, 32)
    fringe = F.max_pool2d(core[:, None].float(), 2 * FRINGE + 1, 1, FRINGE)[:, 0] > 0
    return number, Blobs(image, core, fringe & (core | ~mask[image]))


def _misfit(cover, center, radius):
    """Area between two outlines / their length; the better of a crisp and a soft template."""
    best = []
    for k, shape in enumerate(SHAPES):
        ideal = _template(shape, center, radius[:, k], cover.shape[-1])
        area = [(cover - _blur(ideal, sigma)).abs().sum((1, 2)) for sigma in SHARPNESS]
        best.append(torch.stack(area).amin(0) / (OUTLINE[shape] * radius[:, k]))
    return torch.stack(best, 1)


def _template(shape, center, radius, side, fine=3):
    """Covered fraction of each pixel, from fine x fine sample points: (M, side, side)."""
    point = (torch.arange(side * fine) + 0.5) / fine
    x = (point[None, None, :] - center[:, 0, None, None]) / radius[:, None, None]
    y = (point[None, :, None] - center[:, 1, None, None]) / radius[:, None, None]
    if shape == "circle":
        inside = x * x + y * y < 1
    elif shape == "square":
        inside = (x.abs() < 0.88) & (y.abs() < 0.88)
    elif shape == "triangle":  # apex at -1.1, base at 0.55
        inside = (y < 0.55) & (x.abs() * 3**0.5 < y + 1.1)
    elif shape == "ring":
        inside = ((x * x + y * y) < 1) & ((x * x + y * y) > 0.25)
    else:  # cross
        inside = ((x.abs() < 0.36) & (y.abs() < 1)) | ((y.abs() < 0.36) & (x.abs() < 1))
    return F.avg_pool2d(inside.float()[:, None], fine)[:, 0]


def _blur(mask, sigma):
    if sigma == 0:
        return mask
    tap = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / sigma) ** 2)
    kernel = torch.outer(tap, tap) / tap.sum() ** 2
    return F.conv2d(mask[:, None], kernel[None, None], padding=2)[:, 0]


def _mean(images, mask):
    mask = mask[:, None].float()
    return (images * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)


def _slope(images, free, color):
    half = images.shape[-1] // 2
    ends = (slice(None, half), slice(half, None))
    means = []
    for rows, columns in ((a, b) for a in ends for b in ends):
        few = free[:, rows, columns].sum((1, 2)) < 16  # too few to tell
        mean = _mean(images[..., rows, columns], free[:, rows, columns])
        means.append(torch.where(few[:, None], color, mean))
    means = torch.stack(means)  # (4, N, 3)
    return (means.amax(0) - means.amin(0)).norm(dim=1)


def _largest_patch(field, mask):
    """Largest length of a 3x3 mean of (n, 3, 32, 32) that lies mostly within the mask."""
    mask = mask[:, None].float()
    count = F.avg_pool2d(mask, 3, 1, 1)
    mean = F.avg_pool2d(field * mask, 3, 1, 1) / count.clamp(min=0.1)
    return (mean.norm(dim=1) * (count[:, 0] > 0.5)).amax((1, 2))
