"""Figures of one look, shown with the text that describes them.

Jupyter gives a matplotlib picture no alternative text. Here a figure goes out as HTML that
carries it, with the same words as plain text, so that tests can compare them.
"""

import base64
from collections.abc import Sequence
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
import torch
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.images import encode_webp, image_grid, require_uint8, to_uint8

INCH = 96  # CSS pixels
SHARPNESS = 1.5  # picture pixels a CSS pixel
PALE = "#bbbbbb"  # what is shown for comparison
QUALITY = 75  # of pictures that may lose a little
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"
COLORS = (
    BLUE,
    ORANGE,
    GREEN,
    RED,
    PURPLE,
    "#56b4e9",
)  # Okabe and Ito: safe for the colour-blind
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLORS),
    "axes.grid": False,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
}


@contextmanager
def look():
    """Within it matplotlib draws in the course's look; outside nothing changes."""
    with mpl.rc_context(STYLE):
        yield


def subplots(rows: int = 1, columns: int = 1, size: tuple[float, float] = (9, 3)):
    """A new figure of `size` inches and its axes, as matplotlib's own `subplots` gives them.

    The figure is shown by `show` alone: a notebook does not show it a second time by itself.
    """
    with look():
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns)


def figure_pixels(figure: Figure, sharpness: float = 1.0) -> Tensor:
    """Draw a figure: uint8 (3, H, W), with `sharpness` * 96 pixels an inch."""
    figure.set_dpi(INCH * sharpness)
    canvas = FigureCanvasAgg(figure)
    with look():
        canvas.draw()
    return _pixels(canvas)


class Flipbook:
    """Frames of a figure in which only the artists `moving` change; the rest is drawn once.

    Change the artists, then take `frame()`: uint8 (3, H, W). All frames have one size.
    """

    def __init__(self, figure: Figure, moving: Sequence[Artist]):
        self.figure, self.moving = figure, sorted(moving, key=lambda a: a.get_zorder())
        for artist in self.moving:
            artist.set_animated(True)  # left out of the background
        figure_pixels(figure)
        self.canvas = figure.canvas
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def frame(self) -> Tensor:
        """The figure with its moving artists as they are now."""
        self.canvas.restore_region(self.background)
        with look():
            for artist in self.moving:
                artist.axes.draw_artist(artist)
        return _pixels(self.canvas)


def _pixels(canvas: FigureCanvasAgg) -> Tensor:
    width, height = canvas.get_width_height()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return pixels.view(height, width, 4)[..., :3].permute(2, 0, 1).contiguous()


def figure_html(
    image: Tensor,
    alt: str,
    caption: str = "",
    width: int | None = None,
    exact: bool = True,
) -> str:
    """uint8 (3, H, W) as a <figure> of at most `width` CSS pixels, with `alt` and a caption.

    exact: keep every pixel; else the picture may lose a little where that makes it smaller.
    Raises InputError where `alt` is empty: a figure that is not described is not seen by all.
    """
    require_uint8(image, "image", "3 H W")
    if not alt.strip():
        raise InputError("alt is empty; say in a sentence what the figure shows")
    kept = encode_webp(image, lossless=True)
    kept = kept if exact else min(kept, encode_webp(image, QUALITY), key=len)
    content = base64.b64encode(kept).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure style="margin: 0.5em 0"><img alt="{escape(alt)}" '
        f'width="{width or image.shape[2]}" style="max-width: 100%; height: auto" '
        f'src="data:image/webp;base64,{content}">{below}</figure>'
    )


def show(figure: Figure, alt: str, caption: str = "") -> None:
    """Show a figure with the sentence that describes it (`alt`) and a caption below."""
    html = figure_html(
        figure_pixels(figure, SHARPNESS),
        alt,
        caption,
        round(figure.get_size_inches()[0] * INCH),
    )
    display({"text/html": html, "text/plain": f"Figure: {alt}"}, raw=True)


def picture_row(
    images: Tensor, titles: Sequence[str], size: float = 1.7, columns: int = 6
) -> Figure:
    """Images (N, 3, H, W), uint8 or float in [-1, 1], in rows of `columns`, titles above.

    Values outside [-1, 1] are clamped for the eye alone. Raises InputError unless there is one
    title an image.
    """
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    require_uint8(pixels, "images", "N 3 H W")
    if len(titles) != len(pixels):
        raise InputError(f"{len(pixels)} images need {len(pixels)} titles, got {len(titles)}")
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    figure, axes = subplots(rows, columns, (size * columns, (size + 0.25) * rows))
    axes = [axes] if rows * columns == 1 else list(axes.flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, image, title in zip(axes, pixels, titles, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy())
        axis.set_title(title)
    return figure


def enlarged(image: Tensor, side: int) -> Tensor:
    """uint8 (3, H, W) with each pixel repeated until the height is at most `side`."""
    require_uint8(image, "image", "3 H W")
    return image_grid(image[None], 1, scale=max(1, side // image.shape[1]))


def beside(left: Tensor, right: Tensor) -> Tensor:
    """Two pictures, uint8 (3, H, W) each, side by side on white; the lower one is filled up."""
    height = max(left.shape[1], right.shape[1])
    parts = [
        torch.nn.functional.pad(part, (0, 12, 0, height - part.shape[1]), value=255)
        for part in (left, right)
    ]
    return torch.cat(parts, dim=2)
