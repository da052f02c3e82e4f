"""The page a training run leaves behind: one HTML file; its prose is in assets/report.html."""

import math
import string
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from torch import Tensor

from ldm_edu.chart import loss_chart
from ldm_edu.film import MAT, Film, asset, film_html, noise_label, pick, picture, side_by_side
from ldm_edu.images import channel_images, image_grid, latent_to_rgb, write_atomic
from ldm_edu.report_parts import Denoising, Noising, Reconstruction, Report

__all__ = ["Denoising", "Noising", "Reconstruction", "Report", "write_report"]

FRAMES, SIDE = 21, 128  # of a film, and pixels of its panels: noise hardly compresses
DATA, PAIRS, LATENTS, CHANNELS = 16, 8, 4, 8  # pictures shown at most


def _film(tracks: Sequence[Tensor], labels: Sequence[str], **texts: object) -> str:
    # as many whole rows of images as fit a panel
    n, height = tracks[0].shape[1], tracks[0].shape[3]
    columns = max(1, min(math.ceil(math.sqrt(n)), SIDE // height))
    shown = columns * max(1, min(columns, n // columns))
    kept = pick(len(labels), FRAMES)
    frames = side_by_side([track[kept, :shown] for track in tracks], columns)
    return film_html(Film(frames, [labels[k] for k in kept], **texts))


def _noising(part: Noising) -> str:
    return _film(
        (part.pixels, part.decoded, part.latents_rgb),
        [noise_label(t, a) for t, a in zip(part.t, part.alpha_bar, strict=True)],
        name="Noise level t",
        alt="Images dissolving into noise: in pixels, in latents seen through the decoder, "
        "and the latents as colours.",
        caption="Move the slider to the right to add noise. The three panels show the same "
        "images at the same t.",
        panels=(
            "x\u209c: noise on the pixels",
            "z\u209c: noise on the latent, decoded",
            "z\u209c as colours",
        ),
    )


def _denoising(part: Denoising) -> str:
    return _film(
        (part.z_t_decoded, part.z0_hat_decoded, part.z_t_rgb),
        [f"t = {t}" for t in part.t],
        name="Denoising step t",
        alt="Samples appearing out of noise: the noisy latent decoded, the predicted clean "
        "latent decoded, and the noisy latent as colours.",
        caption="From pure noise at the left end of the slider to samples at the right.",
        panels=("z\u209c, decoded", "the guess for z\u2080, decoded", "z\u209c as colours"),
    )


def _facts(rows: Iterable[tuple[str, object]]) -> str:
    return "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in rows
    )


def _data(report: Report) -> str:
    captions = report.captions or [""] * len(report.images)
    return "".join(
        f"<li>{picture(image, caption or f'Training image {k}')}<p>{escape(caption)}</p></li>"
        for k, (image, caption) in enumerate(zip(report.images, captions, strict=True), 1)
        if k <= DATA
    )


def _pairs(part: Reconstruction) -> str:
    return "".join(
        f"<li>{picture(part.originals[k], f'Original {k + 1}')}"
        f"{picture(part.reconstructions[k], f'Reconstruction {k + 1}, {part.psnr[k]:.1f} dB')}"
        f"<p>{part.psnr[k]:.1f} dB</p></li>"
        for k in range(min(PAIRS, len(part.psnr)))
    )


def _verdict(part: Reconstruction) -> str:
    if part.pca_psnr is None:
        return ""
    gain = part.psnr_overall - part.pca_psnr
    text = (
        f"The line to beat is <b>{part.pca_psnr:.1f} dB</b>: patch-PCA, the best linear code "
        "with equally many numbers. "
    )
    if gain > 0:
        return text + f"This autoencoder lies <b>{gain:.1f} dB above it</b>."
    return text + (
        f"This autoencoder lies <b>{-gain:.1f} dB below it</b>: it has not yet learned what "
        "linear algebra gives for nothing, so train it longer."
    )


def _chain(report: Report, rgb: Tensor) -> str:
    part, z = report.reconstruction, report.latents
    _, channels, h, w = z.shape
    _, _, height, width = part.originals.shape
    sizes = (
        f"{height} \u00d7 {width} \u00d7 3 = {3 * height * width:,} numbers",
        f"{h} \u00d7 {w} \u00d7 {channels} = {channels * h * w:,} numbers",
        f"{height} \u00d7 {width} \u00d7 3 again",
    )
    steps = (
        picture(part.originals[0], "A test image"),
        picture(rgb[0], "Its latent, as colours", lossless=True),
        picture(part.reconstructions[0], "The image decoded from the latent"),
    )
    names = ("image <i>x</i><sub>0</sub>", "latent <i>z</i><sub>0</sub>", "decoded image")
    boxes = [
        f"<div>{step}<p><b>{name}</b><br>{size}</p></div>"
        for step, name, size in zip(steps, names, sizes, strict=True)
    ]
    arrow = '<span class="arrow">{} <span aria-hidden="true">\u2192</span></span>'
    return boxes[0] + arrow.format("encode") + boxes[1] + arrow.format("decode") + boxes[2]


def _latents(report: Report, rgb: Tensor) -> str:
    greys = channel_images(report.latents)[:, :CHANNELS]
    heads = ["image", "as colours", *(f"channel {c + 1}" for c in range(greys.shape[1]))]
    rows = []
    for k in range(min(LATENTS, len(greys))):
        cells = [
            picture(report.reconstruction.originals[k], f"Image {k + 1}"),
            picture(rgb[k], f"Latent {k + 1} as colours", lossless=True),
        ]
        for c, grey in enumerate(greys[k], 1):
            alt = f"Latent {k + 1}, channel {c}"
            cells.append(picture(grey.expand(3, -1, -1), alt, lossless=True))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _charts(report: Report) -> str:
    return "".join(
        f"<figure>{loss_chart(name, steps, values, k)}<figcaption>{escape(name)}</figcaption>"
        "</figure>"
        for k, (name, (steps, values)) in enumerate(report.curves.items(), 1)
    )


def _prompts(report: Report) -> str:
    if not report.prompts:
        return ""
    items = "".join(f"<li>{escape(prompt)}</li>" for prompt in report.prompts)
    return f"<details><summary>The captions, row by row</summary><ol>{items}</ol></details>"


def _numbers(report: Report) -> dict[str, str]:
    part, noising = report.reconstruction, report.noising
    (_, _, height, width), (_, channels, h, w) = part.originals.shape, report.latents.shape
    shown = pick(len(noising.t), FRAMES)
    even = min(shown, key=lambda k: abs(noising.alpha_bar[k] - 0.5))
    return {
        "f": str(height // h),
        "fewer": str(height * width // (h * w)),
        "ratio": f"{3 * height * width / (channels * h * w):.3g}",
        "psnr": f"{part.psnr_overall:.1f}",
        "rms": f"{100 * 10 ** (-part.psnr_overall / 20):.1f}",
        "verdict": _verdict(part),
        "even_t": str(noising.t[even]),
        "count": str(len(report.samples)),
    }


def write_report(path: str | Path, report: Report) -> Path:
    """Write `report` as one self-contained HTML file, atomically, and return its path.

    At most 21 frames a film, 16 data images, 8 reconstructions and 4 latents are shown, so that
    64 x 64 images stay under 3 MB. Raises StorageError when the file cannot be written.
    """
    rgb = latent_to_rgb(report.latents)
    samples = image_grid(report.samples, 8, pad=2, fill=MAT)
    page = string.Template(asset("report.html")).substitute(
        _numbers(report),
        title=escape(report.title),
        css=asset("film.css") + asset("report.css"),
        film_js=asset("film.js") + asset("film_page.js"),
        summary=_facts(report.summary),
        chain=_chain(report, rgb),
        data=_data(report),
        pairs=_pairs(report.reconstruction),
        latents=_latents(report, rgb),
        noising=_noising(report.noising),
        charts=_charts(report),
        denoising=_denoising(report.denoising),
        samples=picture(samples, f"{len(report.samples)} samples of the model, in rows of 8"),
        prompts=_prompts(report),
        command=escape(report.command),
        versions=_facts(report.versions.items()),
    )
    return write_atomic(path, page.encode())
