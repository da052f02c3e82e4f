"""A picture to paint a mask on: what is masked is painted anew by whoever listens."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import anywidget
import traitlets
from torch import Tensor

from ldm_edu.errors import InputError, LdmEduError
from ldm_edu.film import asset
from ldm_edu.images import encode_png, to_uint8
from ldm_edu.lab.figures import enlarged, figure_html
from ldm_edu.lab.masks import Stroke, paint_mask, veiled

STILL = 256  # CSS pixels
_TASK = "Paint over a part, write what should be there, and press Paint anew."
_DONE = "{share:.0%} of the pixels are new; the others are the very same."


class MaskPainter(anywidget.AnyWidget):
    """A canvas to paint on, a line for a text, and the result beside it.

    x0: the picture, (3, H, H) in [-1, 1]. use(mask, prompt) -> the new one, (1, 3, H, H), is
    called when the button is pressed, with the mask as `paint_mask` gives it. What it objects
    to (LdmEduError) is told below. All this needs a running kernel; where no widgets run, the
    same output is a still of what is painted. alt: what x0 shows. line, button, answer: what
    the line, the button and the new picture are called. task, done: what is told at first, and
    of a mask's share at last.
    """

    _esm = asset("painter.js")
    _css = asset("film.css") + asset("painter.css")
    picture = traitlets.Bytes().tag(sync=True)
    result = traitlets.Bytes().tag(sync=True)
    side = traitlets.Int().tag(sync=True)
    strokes = traitlets.List().tag(sync=True)
    prompt = traitlets.Unicode().tag(sync=True)
    asked = traitlets.Int().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    line = traitlets.Unicode().tag(sync=True)
    button = traitlets.Unicode().tag(sync=True)
    answer = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        x0: Tensor,
        use: Callable[[Tensor, str], Tensor],
        alt: str,
        prompt: str = "",
        strokes: Sequence[Stroke] = (),
        line: str = "Caption",
        task: str = _TASK,
        done: str = _DONE,
        button: str = "Paint anew",
        answer: str = "painted anew",
    ):
        if x0.ndim != 3 or x0.shape[1] != x0.shape[2]:
            raise InputError(f"x0 must be square, (3, H, H), got {tuple(x0.shape)}")
        picture = encode_png(to_uint8(x0[None])[0])
        super().__init__(
            picture=picture,
            result=picture,
            side=x0.shape[1],
            strokes=[asdict(stroke) for stroke in strokes],
            prompt=prompt,
            alt=alt,
            line=line,
            button=button,
            answer=answer,
            said=task,
        )
        self._x0, self._use, self._done = x0, use, done
        self.observe(self._asked, names="asked")

    @property
    def mask(self) -> Tensor:
        """What is painted now: bool (1, 1, H, H)."""
        return paint_mask([Stroke(**stroke) for stroke in self.strokes], self.side)

    def _asked(self, change: dict) -> None:
        self.said = "Painting ..."
        try:
            mask = self.mask
            if not mask.any():
                raise InputError("nothing is masked yet: paint over a part of the picture")
            self.result = encode_png(to_uint8(self._use(mask, self.prompt))[0])
            self.said = self._done.format(share=mask.double().mean().item())
        except LdmEduError as error:
            self.said = str(error)

    def __repr__(self) -> str:
        return (
            f"A picture to paint a mask on, for the button {self.button!r} "
            "(needs a running kernel)"
        )

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**options)
        return {**data, "text/plain": repr(self), "text/html": self._still()}, metadata

    def _still(self) -> str:
        picture = enlarged(veiled(self._x0[None], self.mask)[0], STILL)
        veil = "A chequered veil lies on the part that is masked."
        alt = f"{self.alt} {veil if self.mask.any() else 'No part of it is masked.'}"
        return figure_html(picture, alt, repr(self), exact=False)
