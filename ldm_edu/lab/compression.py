"""The rate-distortion explorer: what is left of pictures at each f and number of channels."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film
from ldm_edu.images import image_grid, to_uint8
from ldm_edu.lab.figures import BLUE, ORANGE, PALE, RED, Flipbook, beside, subplots
from ldm_edu.metrics import psnr
from ldm_edu.pca import patch_pca, pca_reconstruct

Codes = Mapping[tuple[int, int], Tensor]  # (f, channels) -> reconstructions
SHOWN, SIDE = 5, 96  # pictures in a row, and their pixels in the film
TOP = 45.0  # dB: what is better is drawn there


def pca_codes(
    train: Tensor, x: Tensor, factors: Sequence[int], channels: Sequence[int]
) -> dict[tuple[int, int], Tensor]:
    """Pictures x (N, 3, H, W) through the patch-PCA of `train`, for each f and channel count.

    A patch has 3 f^2 values: with as many channels or more, nothing is lost.
    """
    codes = {}
    for f in factors:
        basis, mean, _ = patch_pca(train, f, min(max(channels), x.shape[1] * f * f))
        for c in channels:  # the first c of the best are the best c
            codes[f, c] = pca_reconstruct(x, f, basis[:, :c], mean)
    return codes


def numbers_kept(x: Tensor, f: int, channels: int) -> int:
    """Numbers in the latent of one picture of x (N, C, H, W): at most C f^2 a position."""
    return min(channels, x.shape[1] * f * f) * (x.shape[2] // f) * (x.shape[3] // f)


def rate_distortion_film(
    x: Tensor, codes: Codes, trained: Tensor, trained_code: tuple[int, int]
) -> Film:
    """Film over the channels, a shot for each f: pictures, their two versions, and the curve.

    x, trained and each of `codes`: (N, 3, H, W) in [-1, 1], H dividing 96; the first five are
    shown, PSNR is the mean over all. `trained` is an autoencoder's at trained_code = (f, c).
    Raises InputError unless `codes` is a full grid, f by f.
    """
    factors, channels = (list(dict.fromkeys(axis)) for axis in zip(*codes, strict=True))
    if list(codes) != [(f, c) for f in factors for c in channels]:
        raise InputError(f"codes must be a full grid of (f, channels), got {list(codes)}")
    quality = {code: psnr(x, x_hat).mean().item() for code, x_hat in codes.items()}
    star = numbers_kept(x, *trained_code), psnr(x, trained).mean().item()
    chart = _Chart(x, quality, star)
    frames, labels = [], []
    for (f, c), x_hat in codes.items():
        pictures = to_uint8(torch.cat([v[:SHOWN] for v in (x, x_hat, trained)]))
        scale = SIDE // x.shape[3]
        rows = image_grid(pictures, min(SHOWN, len(x)), pad=6, scale=scale)
        frames.append(beside(rows, chart.draw(f, c)))
        decibels = quality[f, c]
        loss = f"{decibels:.1f} dB" if decibels < 100 else "nothing is lost"
        count = f"{c} channel{'s' if c > 1 else ''}"
        labels.append(f"{count}, {numbers_kept(x, f, c)} numbers, {loss}")
    return Film(
        frames=torch.stack(frames),
        labels=labels,
        alt="Pictures; below them what patch-PCA keeps of them; below that what a trained "
        "autoencoder keeps; beside them the PSNR over the numbers that are kept.",
        caption="Rows: the pictures; through patch-PCA; through the trained autoencoder (f = "
        f"{trained_code[0]}, {trained_code[1]} channels, always the same). Right: a line for "
        "each f; at the dashed line nothing is saved. The red dot is what you see in the "
        "second row, the star is the third.",
        name="Channels",
        dials=[Dial("Patch size f", [f"f = {f}" for f in factors])],
        smooth=True,
        width=frames[0].shape[2],
    )


class _Chart:
    """PSNR over the numbers kept: drawn once, and only what moves is changed."""

    def __init__(self, x: Tensor, quality: Mapping[tuple[int, int], float], star: tuple):
        self.place = {
            (f, c): (numbers_kept(x, f, c), min(decibels, TOP))
            for (f, c), decibels in quality.items()
        }
        figure, axis = subplots(size=(3.6, 3.1))
        self.lines = {}
        for f in dict.fromkeys(f for f, _ in quality):
            points = [place for code, place in self.place.items() if code[0] == f]
            self.lines[f] = axis.plot(*zip(*points, strict=True), ".-")[0]
            axis.annotate(f"f = {f}", points[0], (0, -8), textcoords="offset points", va="top")
        axis.plot(*star, "*", color=ORANGE, markersize=15)
        axis.set_xscale("log", base=2)
        axis.set(xlabel="numbers a picture", ylabel="PSNR in dB", ylim=(10, TOP + 1))
        most = math.prod(x.shape[1:])
        axis.axvline(most, color="black", linewidth=0.8, linestyle="--")
        self.dot = axis.plot([0], [0], "o", color=RED, markersize=9)[0]
        self.book = Flipbook(figure, [*self.lines.values(), self.dot])

    def draw(self, f: int, c: int) -> Tensor:
        for other, line in self.lines.items():
            line.set_color(BLUE if other == f else PALE)
        self.dot.set_data(*([value] for value in self.place[f, c]))
        return self.book.frame()
