"""Films: the sheet, the frames, and the state that film.js reads."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ldm_edu.errors import InputError
from ldm_edu.film import Film, film_html, film_state, pick, side_by_side, sprite_sheet
from ldm_edu.images import encode_webp


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 4, 4), (7, 4, 9), (21, 6, 30)])
def test_frame_k_of_the_sheet_is_frame_k(count, height, width):
    frames = noise(count, 3, height, width)
    sheet, geometry = sprite_sheet(frames)
    picture = Image.open(io.BytesIO(encode_webp(sheet, lossless=True))).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert (geometry["frames"], geometry["width"], geometry["height"]) == (count, width, height)
    for k in range(count):
        top, left = k // geometry["columns"] * height, k % geometry["columns"] * width
        assert torch.equal(pixels[:, top : top + height, left : left + width], frames[k])


def test_the_state_of_a_film_in_the_page_is_the_state_of_the_widget():
    film = Film(noise(3, 3, 4, 4), ["a", "b", "c"], "noise", "Noise.", start=2)
    state = film_state(film)
    script = re.search(r"<script[^>]*>(.*?)</script>", film_html(film))
    written = json.loads(script[1])
    assert base64.b64decode(written.pop("sheet")) == state.pop("sheet")
    assert written == state
    assert state["index"] == 2


def test_side_by_side_enlarges_latents_by_whole_pixels():
    pixels, latents = noise(2, 4, 3, 8, 8), noise(2, 4, 3, 2, 2)
    frames = side_by_side([pixels, latents], columns=2, gap=6)
    assert frames.shape == (2, 3, 18, 18 + 6 + 18)
    assert torch.equal(frames[1, :, 10:18, 10:18], pixels[1, 3])
    assert torch.equal(frames[1, :, 10:18:4, 34:42:4], latents[1, 3])
    with pytest.raises(InputError):
        side_by_side([pixels, noise(2, 4, 3, 3, 3)], columns=2)


def test_pick_keeps_both_ends():
    assert pick(3, 10) == [0, 1, 2]
    assert pick(101, 5) == [0, 25, 50, 75, 100]
    assert pick(1, 5) == [0]


@pytest.mark.parametrize("wrong", [{"labels": ["a"]}, {"start": 2}, {"alt": " "}])
def test_films_that_do_not_fit_are_refused(wrong):
    film = Film(noise(2, 3, 4, 4), ["a", "b"], "noise", "Noise.")
    with pytest.raises(InputError):
        replace(film, **wrong)
