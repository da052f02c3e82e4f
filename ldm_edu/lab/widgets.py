"""The film in a notebook: the base of everything in the course that has a slider.

A film's frames are computed once, in Python. Then its script moves through them with no kernel
behind it, so that a film goes on working when the kernel has gone, and in an exported page.
"""

from collections.abc import Callable, Mapping

import anywidget
import ipywidgets
import traitlets
from torch import Tensor

from ldm_edu.errors import LdmEduError
from ldm_edu.film import STILLS, Film, asset, film_state, pick
from ldm_edu.images import image_grid
from ldm_edu.lab.figures import figure_html

STRIP = 900  # CSS pixels: stills are laid out to about this width
_CHOOSE = "Choose a picture of your own"


class FilmWidget(anywidget.AnyWidget):
    """A film to play with: `FilmWidget(film)` as the last line of a cell, or `display(...)`.

    Where no widgets run (a preview on the web, paper) the same output is a strip of stills.
    `change(film)` puts another film of the same layout in its place.
    """

    _esm = asset("film.js")
    _css = asset("film.css")
    sheet = traitlets.Bytes().tag(sync=True)
    mime = traitlets.Unicode().tag(sync=True)
    geometry = traitlets.Dict().tag(sync=True)
    labels = traitlets.List().tag(sync=True)
    panels = traitlets.List().tag(sync=True)
    dials = traitlets.List().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    index = traitlets.Int().tag(sync=True)
    smooth = traitlets.Bool().tag(sync=True)
    width = traitlets.Int().tag(sync=True)

    def __init__(self, film: Film):
        self._film = film
        super().__init__(**film_state(film), caption=film.caption)

    def change(self, film: Film) -> None:
        """Show another film; its sliders must have as many places as those of the first."""
        self._film = film
        with self.hold_sync():
            for name, value in film_state(film).items():
                if name != "index":
                    setattr(self, name, value)

    def __repr__(self) -> str:
        dials = "".join(f", {dial.name}" for dial in self._film.dials)
        return f"Film: {self._film.alt} ({len(self._film.frames)} frames; {self.name}{dials})"

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**options)
        return {
            **data,
            "text/plain": repr(self),
            "text/html": stills_html(self._film),
        }, metadata


class PictureButton(ipywidgets.FileUpload):
    """A button that opens a picture of yours: `use(bytes)` is called with the file's content.

    It needs a running kernel. A file that `use` refuses (LdmEduError) is told on the button.
    """

    def __init__(self, use: Callable[[bytes], None]):
        super().__init__(accept="image/*", description=_CHOOSE, layout={"width": "auto"})
        self._use = use
        self.observe(self._chosen, names="value")

    def _chosen(self, change: Mapping) -> None:
        for file in change["new"]:
            try:
                self._use(bytes(file["content"]))
                self.description = _CHOOSE
            except LdmEduError as error:
                self.description = f"{file['name']}: {error}"

    def __repr__(self) -> str:
        return "A button: choose a picture of your own (needs a running kernel)"


def stills(film: Film) -> tuple[Tensor, list[str]]:
    """A few frames of the film's first shot as one picture, uint8 (3, H, W); their labels."""
    length = len(film.frames) // film.shots
    first = film.start // length * length
    few = film.frames.shape[3] > STRIP // 2  # they are kept in git
    shown = [first + k for k in pick(length, 4 if few else STILLS)]
    columns = max(1, min(len(shown), STRIP // film.frames.shape[3]))
    while len(shown) % columns:
        columns -= 1
    strip = image_grid(film.frames[shown], columns, pad=6, fill=255)
    return strip, [film.labels[k] for k in shown]


def stills_html(film: Film) -> str:
    """The film where no widgets run: stills, what they show, and how to get the slider."""
    strip, labels = stills(film)
    order = "; ".join(labels)
    caption = f"{film.caption} Stills, in reading order: {order}. Run the cell for the slider."
    return figure_html(strip, f"{film.alt} Stills: {order}.", caption.strip(), exact=False)
