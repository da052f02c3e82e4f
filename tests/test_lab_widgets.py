"""Films in notebooks: the script's state, the stills that stand in, the picture button."""

import base64
import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film, film_state
from ldm_edu.images import encode_png
from ldm_edu.lab.figures import (
    Flipbook,
    figure_html,
    figure_pixels,
    picture_row,
    show,
    subplots,
)
from ldm_edu.lab.pictures import drawing, open_picture, photograph
from ldm_edu.lab.widgets import FilmWidget, PictureButton, stills

DIALS = (Dial("Steps", ["2 steps", "5 steps"]), Dial("eta", ["0", "0.5", "1"]))


def film(count: int = 12, **changes: object) -> Film:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 3, 8, 10), dtype=torch.uint8, generator=generator)
    labels = [f"t = {k}" for k in range(count)]
    return replace(Film(frames, labels, "Noise.", "What to see."), **changes)


def pixels_of(html: str) -> torch.Tensor:
    content = base64.b64decode(re.search(r"base64,([^\"]+)\"", html)[1])
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def test_the_widget_holds_the_state_of_the_script():
    made = film(dials=DIALS, smooth=True, width=300)
    widget = FilmWidget(made)
    for name, value in film_state(made).items():
        assert getattr(widget, name) == value
    assert widget.dials[1] == {"name": "eta", "places": ["0", "0.5", "1"]}
    assert "render" in widget._esm


def test_its_text_has_no_address_and_its_html_describes_the_stills():
    data, _ = FilmWidget(film())._repr_mimebundle_()
    assert data["text/plain"] == "Film: Noise. (12 frames; Frame)"
    assert "application/vnd.jupyter.widget-view+json" in data
    assert (
        'alt="Noise. Stills: t = 0; t = 2; t = 4; t = 7; t = 9; t = 11."' in data["text/html"]
    )
    assert "What to see." in data["text/html"]


def test_stills_are_frames_of_the_shot_that_is_shown_first():
    made = film(dials=DIALS, start=5)  # shots of two frames; 5 lies in the third
    strip, labels = stills(made)
    assert labels == ["t = 4", "t = 5"]
    assert torch.equal(strip[:, :8, :10], made.frames[4])
    assert torch.equal(strip[:, :8, 16:26], made.frames[5])


def test_change_shows_another_film_and_keeps_the_place():
    widget = FilmWidget(film())
    widget.index = 3
    other = film(smooth=True)
    widget.change(other)
    assert widget.index == 3
    assert widget.sheet == film_state(other)["sheet"]


@pytest.mark.parametrize("dials", [(Dial("a", ["1", "2", "3", "4", "5"]),), (*DIALS, *DIALS)])
def test_frames_that_do_not_divide_into_the_dials_are_refused(dials):
    with pytest.raises(InputError):
        film(dials=dials)


@pytest.mark.parametrize(("name", "places"), [("", ["a", "b"]), ("a", ["b"])])
def test_a_dial_needs_a_name_and_places(name, places):
    with pytest.raises(InputError):
        Dial(name, places)


def upload(name: str, content: bytes) -> dict:
    now = datetime.now(UTC)
    return {"name": name, "type": "", "size": 0, "last_modified": now, "content": content}


def test_the_picture_button_hands_on_a_picture_and_tells_what_is_none():
    shown = []
    button = PictureButton(lambda content: shown.append(open_picture(content, 16)))
    red = torch.zeros(3, 20, 40, dtype=torch.uint8)
    red[0] = 255
    button.value = [upload("a.png", encode_png(red))]
    assert torch.equal(shown[0][0], torch.ones(16, 16))
    assert torch.equal(shown[0][1:], -torch.ones(2, 16, 16))
    button.value = [upload("b.png", b"no picture")]
    assert len(shown) == 1
    assert button.description.startswith("b.png: this file is no picture")
    assert "0x" not in repr(button)


def test_pictures_are_square_and_in_range(tmp_path):
    for x0, side in ((photograph(24), 24), (drawing("a large red ring in the center on a "
                     "white background"), 32)):  # fmt: skip
        assert x0.shape == (3, side, side)
        assert x0.dtype == torch.float32
        assert -1 <= x0.min() < x0.max() <= 1
    with pytest.raises(ValueError, match="no file"):
        open_picture(tmp_path / "absent.png")
    with pytest.raises(InputError):
        photograph(4)


def test_the_middle_of_a_wide_picture_is_kept():
    wide = torch.zeros(3, 8, 24, dtype=torch.uint8)
    wide[:, :, 8:16] = 255
    assert torch.equal(open_picture(encode_png(wide), 8), torch.ones(3, 8, 8))


def test_a_figure_goes_out_with_its_description(capsys):
    figure, axis = subplots(size=(2, 1))
    axis.plot([0, 1])
    drawn = figure_pixels(figure)
    html = figure_html(drawn, 'A "rising" line', "Below")
    assert 'alt="A &quot;rising&quot; line"' in html
    assert "<figcaption>Below</figcaption>" in html
    assert torch.equal(pixels_of(html), drawn)
    assert drawn.shape == (3, 96, 192)
    show(figure, alt="A rising line")
    assert "Figure: A rising line" in capsys.readouterr().out
    with pytest.raises(InputError):
        show(figure, alt=" ")


def test_a_row_of_pictures_needs_a_title_each():
    x = torch.zeros(3, 3, 4, 4)
    assert len(picture_row(x, "abc", columns=2).axes) == 4
    with pytest.raises(InputError):
        picture_row(x, "ab")


def test_a_flipbook_draws_what_the_whole_figure_would_be():
    def drawn(moved: float, whole: bool) -> torch.Tensor:
        figure, axis = subplots(size=(2, 1))
        axis.plot([0, 1])
        dot = axis.plot([0.5], [0.5], "o")[0]
        book = None if whole else Flipbook(figure, [dot])
        dot.set_data([moved], [0.2])
        return figure_pixels(figure) if whole else book.frame()

    for moved in (0.1, 0.8):
        assert torch.equal(drawn(moved, whole=True), drawn(moved, whole=False))
    assert not torch.equal(drawn(0.1, whole=False), drawn(0.8, whole=False))
