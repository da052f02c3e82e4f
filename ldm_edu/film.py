"""A film: frames on one sprite sheet that a slider, with no kernel behind it, looks through.

`film_state` is the state of the ES module `assets/film.js`. A page hands it to a stand-in
model (`film_html`), a notebook to an anywidget, so that both run the same script.
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.images import encode_webp, image_grid, require_uint8

MAT = 24  # grey level between pictures; the style sheets paint the same colour behind them
STILLS = 6  # frames shown on paper and where no script runs


@dataclass(frozen=True)
class Dial:
    """One more slider over a film: what it moves along, and a text for each of its places.

    Raises InputError without a name, or with fewer than two places.
    """

    name: str
    places: Sequence[str]

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.places) < 2:
            raise InputError(f"a dial needs a name and 2 places, got {self}")


@dataclass(frozen=True)
class Film:
    """Frames of one size, in order, with a label for each.

    With `dials`, the frames run over all their places too: first the film at the first place of
    every dial; the last dial turns fastest. Raises InputError when the parts do not fit.
    """

    frames: Tensor  # (F, 3, H, W) uint8
    labels: Sequence[str]  # F texts, e.g. "t = 940"
    alt: str  # what is seen, for those who do not see it
    caption: str  # plain text under the film
    start: int = 0  # the frame shown first
    panels: Sequence[str] = ()  # captions of equal columns of the frame, left to right
    name: str = "Frame"  # what the slider moves along
    dials: Sequence[Dial] = ()  # further sliders
    smooth: bool = False  # drawn charts, not pixels: scale them smoothly
    width: int = 0  # CSS pixels that a frame fills at most; 0 fills the page

    def __post_init__(self) -> None:
        require_uint8(self.frames, "frames", "F 3 H W")
        count = len(self.frames)
        if len(self.labels) != count:
            raise InputError(f"{count} frames need {count} labels, got {len(self.labels)}")
        if not 0 <= self.start < count:
            raise InputError(f"start must be in 0..{count - 1}, got {self.start}")
        if not self.alt.strip() or not self.name.strip():
            raise InputError(f"alt and name must be texts, got {self.alt!r}, {self.name!r}")
        if count % self.shots:
            places = [len(dial.places) for dial in self.dials]
            raise InputError(f"{count} frames do not divide into dials of {places} places")

    @property
    def shots(self) -> int:
        """Films in this film: one for each combination of the dials' places."""
        return math.prod(len(dial.places) for dial in self.dials)


def noise_label(t: int, alpha_bar: float) -> str:
    """What a frame of noising says below it: t, alpha_bar and the signal-to-noise ratio."""
    snr = alpha_bar / (1 - alpha_bar) if alpha_bar < 1 else math.inf
    ratio = "\u221e" if snr == math.inf else f"{snr:,.0f}" if snr >= 100 else f"{snr:.2g}"
    return f"t = {t}, \u1fb1 = {alpha_bar:.3f}, SNR = {ratio}"


def asset(name: str) -> str:
    """Text of a file in ldm_edu/assets, e.g. "film.js"."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def pick(count: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0..count-1, evenly spread, first and last among them."""
    shown = min(count, limit)
    return [round(k * (count - 1) / max(shown - 1, 1)) for k in range(shown)]


def check_tracks(tracks: Sequence[Tensor]) -> None:
    """InputError unless all are uint8 (F, N, 3, h, w): one F, one N, sizes that divide."""
    for k, track in enumerate(tracks):
        require_uint8(track, f"track {k}", "F N 3 h w")
    shapes = [tuple(track.shape) for track in tracks]
    height, width = max(shape[3] for shape in shapes), max(shape[4] for shape in shapes)
    if len({shape[:2] for shape in shapes}) != 1 or any(
        (h * (width // w), w * (width // w)) != (height, width) for *_, h, w in shapes
    ):
        raise InputError(f"tracks need one F, one N and sizes that divide, got {shapes}")


def side_by_side(tracks: Sequence[Tensor], columns: int, gap: int = 6) -> Tensor:
    """Tracks, each uint8 (F, N, 3, h, w), as frames (F, 3, H', W') of one panel per track.

    A panel is a grid of the N images, `columns` wide; smaller images (latents) are enlarged
    by whole pixels to the size of the largest. Raises InputError as `check_tracks` does.
    """
    check_tracks(tracks)
    width = max(track.shape[4] for track in tracks)
    frames = []
    for parts in zip(*tracks, strict=True):
        panels = [image_grid(p, columns, scale=width // p.shape[3], fill=MAT) for p in parts]
        frames.append(image_grid(torch.stack(panels), len(panels), pad=gap, fill=MAT))
    return torch.stack(frames)


def sprite_sheet(frames: Tensor) -> tuple[Tensor, dict[str, int]]:
    """Frames uint8 (F, 3, H, W) -> one sheet uint8 (3, rows*H, columns*W) and its geometry.

    Frame k lies in row k // columns and column k % columns. The geometry holds `frames`,
    `columns`, and the `width` and `height` of a frame; the sheet is about as high as wide.
    """
    require_uint8(frames, "frames", "F 3 H W")
    count, _, height, width = frames.shape
    columns = min(count, math.ceil(math.sqrt(count * height / width)))
    geometry = {"frames": count, "columns": columns, "width": width, "height": height}
    return image_grid(frames, columns, pad=0, fill=MAT), geometry


def film_state(film: Film, quality: int = 85) -> dict[str, object]:
    """What film.js asks its model for: the sheet (WebP bytes), geometry, labels and texts."""
    sheet, geometry = sprite_sheet(film.frames)
    return {
        "sheet": encode_webp(sheet, quality, lossless=film.smooth),
        "mime": "image/webp",
        "geometry": geometry,
        "labels": list(film.labels),
        "panels": list(film.panels),
        "alt": film.alt,
        "name": film.name,
        "index": film.start,
        "dials": [{"name": dial.name, "places": list(dial.places)} for dial in film.dials],
        "smooth": film.smooth,
        "width": film.width,
    }


def picture(image: Tensor, alt: str, quality: int = 85, lossless: bool = False) -> str:
    """uint8 (3, H, W) as an <img> that carries its own data; `alt` is escaped."""
    content = base64.b64encode(encode_webp(image, quality, lossless)).decode()
    return (
        f'<img src="data:image/webp;base64,{content}" alt="{escape(alt)}" '
        f'width="{image.shape[2]}" height="{image.shape[1]}">'
    )


def stage(state: dict[str, object]) -> str:
    """A state whose sheet is base64 text, and the empty element that film_page.js fills."""
    # "<" could end the script element
    packed = json.dumps(state, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json">{packed}</script><div class="stage"></div>'


def film_html(film: Film, quality: int = 85) -> str:
    """The film as a <figure>: its state, an empty stage, and stills for when no script runs.

    The page must hold film.js and then film_page.js, as assets/report.html does.
    All texts are escaped.
    """
    state = film_state(film, quality)
    state["sheet"] = base64.b64encode(state["sheet"]).decode()
    stills = "".join(
        f"<div>{picture(film.frames[k], f'Still frame, {film.labels[k]}', quality)}"
        f"<p>{escape(film.labels[k])}</p></div>"
        for k in pick(len(film.frames), STILLS)
    )
    order = f"<p>Left to right: {escape('; '.join(film.panels))}.</p>" if film.panels else ""
    return (
        f'<figure class="film">{stage(state)}'
        f'<div class="stills">{order}<div>{stills}</div></div>'
        f"<figcaption>{escape(film.caption)}</figcaption></figure>"
    )
