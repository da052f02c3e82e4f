"""The mask painter: strokes to masks, parts of a face, and what the button asks and tells."""

import base64
import io
import re
from html import escape

import numpy as np
import pytest
import torch
from helpers import images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldm_edu.errors import InputError
from ldm_edu.images import encode_png, to_uint8
from ldm_edu.lab.masks import Stroke, face_masks, paint_mask, veiled
from ldm_edu.lab.painter import MaskPainter

SIDE = 16
DOT = Stroke([(4.5, 10.5)], 1.2)  # the pixel in column 4 and row 10, and its four neighbours
BAR = Stroke([(2.5, 3.5), (12.5, 3.5)], 0.5)


def covered(mask: torch.Tensor) -> set[tuple[int, int]]:
    """(column, row) of the pixels that are masked."""
    return {(x, y) for y, x in mask[0, 0].nonzero().tolist()}


def pixels(content: bytes) -> torch.Tensor:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def shown(data: dict) -> torch.Tensor:
    return pixels(base64.b64decode(re.search(r'base64,([^"]+)"', data["text/html"])[1]))


# ---- strokes


def test_a_dot_covers_the_pixels_around_it_and_x_comes_before_y():
    mask = paint_mask([DOT], SIDE)
    assert mask.shape == (1, 1, SIDE, SIDE) and mask.dtype == torch.bool
    assert covered(mask) == {(4, 10), (3, 10), (5, 10), (4, 9), (4, 11)}


def test_a_stroke_covers_its_path_and_not_only_its_points():
    assert covered(paint_mask([BAR], SIDE)) == {(x, 3) for x in range(2, 13)}
    diagonal = paint_mask([Stroke([(0.5, 0.5), (15.5, 15.5)], 0.1)], SIDE)
    assert covered(diagonal) == {(k, k) for k in range(SIDE)}


def test_it_ends_where_the_path_ends_and_has_a_round_tip():
    mask = covered(paint_mask([Stroke([(4.5, 8.5), (9.5, 8.5)], 2.0)], SIDE))
    assert (11, 8) in mask and (2, 8) in mask
    assert (12, 8) not in mask and (11, 10) not in mask and (9, 10) in mask


def test_strokes_add_up_and_a_later_one_may_erase():
    both = paint_mask([DOT, BAR], SIDE)
    assert covered(both) == covered(paint_mask([DOT], SIDE)) | covered(paint_mask([BAR], SIDE))
    eraser = Stroke([(7.5, 3.5)], 1.0, erase=True)
    left = covered(paint_mask([BAR, eraser], SIDE))
    assert left == covered(paint_mask([BAR], SIDE)) - {(6, 3), (7, 3), (8, 3)}
    assert covered(paint_mask([eraser, BAR], SIDE)) == covered(paint_mask([BAR], SIDE))
    assert not paint_mask([], SIDE).any()


@given(
    st.lists(st.tuples(st.floats(0, 16), st.floats(0, 16)), min_size=1, max_size=5),
    st.floats(0.1, 8),
)
def test_a_pixel_is_covered_if_some_point_of_the_path_is_near(points, radius):
    """Against a path cut into many points."""
    ends = torch.tensor(points, dtype=torch.float64)
    shares = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None, None]
    path = torch.cat([(ends[:-1] * (1 - shares) + ends[1:] * shares).flatten(0, 1), ends])
    middle = torch.arange(SIDE, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    nearest = torch.cdist(torch.stack([x, y], -1).flatten(0, 1), path).amin(1).view(SIDE, SIDE)
    clear = (nearest - radius).abs() > 0.03
    mask = paint_mask([Stroke(points, radius)], SIDE)[0, 0]
    assert torch.equal(mask[clear], (nearest <= radius)[clear])


@pytest.mark.parametrize(
    ("points", "radius"), [([], 1), ([(1, 2, 3)], 1), ([(1, 2)], 0), ([(1, 2)], float("nan"))]
)
def test_strokes_that_are_none_are_refused(points, radius):
    with pytest.raises(InputError):
        Stroke(points, radius)


# ---- parts of a face


def test_parts_of_a_face_lie_where_they_are_and_grow_with_the_picture():
    masks = face_masks(64)
    assert list(masks) == ["eyes", "mouth", "hair", "left half", "lower half"]
    assert all(m.shape == (1, 1, 64, 64) and m.dtype == torch.bool for m in masks.values())
    eye, mouth, top = (0, 0, 29, 22), (0, 0, 50, 32), (0, 0, 2, 32)
    for name, seen in {"eyes": eye, "mouth": mouth, "hair": top}.items():
        assert [masks[name][at].item() for at in (eye, mouth, top)] == [
            at == seen for at in (eye, mouth, top)
        ]
    assert masks["left half"][..., :32].all() and not masks["left half"][..., 32:].any()
    assert masks["lower half"][..., 32:, :].all() and not masks["lower half"][..., :32, :].any()
    for name, large in face_masks(128).items():
        small = masks[name].repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert (large == small).double().mean() > 0.97


def test_a_veil_lies_on_the_mask_alone_and_lets_the_picture_through():
    x, mask = images(2), paint_mask([Stroke([(8, 8)], 4)], SIDE)
    shown, before = veiled(x, mask), to_uint8(x)
    changed = (shown != before).any(1, keepdim=True)
    assert not (changed & ~mask).any()
    assert 0.4 < (changed.sum() / (2 * mask.sum())).item() < 0.6
    with pytest.raises(InputError, match="bool"):
        veiled(x, mask.float())


# ---- the widget


def inverted(x0):
    return lambda mask, prompt: torch.where(mask, -x0, x0)


def test_the_button_hands_on_mask_and_caption_and_shows_the_answer():
    x0, asked = images(1)[0], []

    def use(mask, prompt):
        asked.append((mask, prompt, painter.said))
        return inverted(x0)(mask, prompt)

    painter = MaskPainter(x0, use, "Noise.", "a man", [BAR])
    assert painter.result == painter.picture == encode_png(to_uint8(x0[None])[0])
    painter.strokes = [
        *painter.strokes,
        {"points": [[4.5, 10.5]], "radius": 1.2, "erase": False},
    ]
    painter.prompt = "a woman"
    assert asked == []
    painter.asked += 1
    mask, prompt, said = asked[0]
    assert torch.equal(mask, paint_mask([BAR, DOT], SIDE))
    assert (prompt, said) == ("a woman", "Painting ...")
    assert torch.equal(pixels(painter.result), to_uint8(inverted(x0)(mask, ""))[0])
    assert painter.said.startswith("6% of the pixels are new")


def test_an_empty_mask_and_what_the_model_objects_to_are_told():
    def use(mask, prompt):
        raise InputError(f"no {prompt}")

    painter = MaskPainter(images(1)[0], use, "Noise.", "dragons")
    painter.asked += 1
    assert "nothing is masked" in painter.said
    painter.strokes = [{"points": [[4, 4]], "radius": 3, "erase": False}]
    painter.asked += 1
    assert painter.said == "no dragons"
    assert painter.result == painter.picture


def test_the_line_and_what_is_told_are_of_a_caption_unless_others_are_given():
    x0 = images(1)[0]
    assert MaskPainter(x0, inverted(x0), "Noise.").line == "Caption"
    texts = {"line": "Level", "task": "Paint noise.", "done": "{share:.0%} is noise."}
    painter = MaskPainter(x0, inverted(x0), "Noise.", strokes=[BAR], **texts)
    assert (painter.line, painter.said) == ("Level", "Paint noise.")
    painter.asked += 1
    assert painter.said == "4% is noise."


def test_where_no_widgets_run_it_is_a_still_of_the_picture_with_its_veil():
    x0 = images(1)[0]
    painter = MaskPainter(x0, inverted(x0), "Noise.", strokes=[BAR], button="Add noise")
    data, _ = painter._repr_mimebundle_()
    said = "A picture to paint a mask on, for the button 'Add noise' (needs a running kernel)"
    assert data["text/plain"] == said
    assert "application/vnd.jupyter.widget-view+json" in data
    assert f"<figcaption>{escape(said)}</figcaption>" in data["text/html"]
    assert 'alt="Noise. A chequered veil lies on the part that is masked."' in data["text/html"]
    drawn = veiled(x0[None], paint_mask([BAR], SIDE))[0]
    assert torch.equal(shown(data), drawn.repeat_interleave(16, 1).repeat_interleave(16, 2))


def test_a_still_without_a_stroke_is_the_picture_alone():
    x0 = images(1)[0]
    data, _ = MaskPainter(x0, inverted(x0), "Noise.")._repr_mimebundle_()
    assert 'alt="Noise. No part of it is masked."' in data["text/html"]
    assert torch.equal(shown(data)[:, ::16, ::16], to_uint8(x0[None])[0])


def test_its_picture_is_square():
    with pytest.raises(InputError, match="square"):
        MaskPainter(torch.zeros(3, 8, 9), inverted, "Noise.")
