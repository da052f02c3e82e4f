"""Films of edits: each place of the sliders shows what the pipeline makes of its options."""

import pytest
import torch
from helpers import captioned_pipeline, images

from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.images import to_uint8
from ldm_edu.lab.editing import SIDE, inpainting_film, swap_film, vary_film
from ldm_edu.lab.masks import Stroke, paint_mask, veiled
from ldm_edu.lab.word_swap import swap_word

RED, BLUE = "a red circle", "a blue circle"
GAP = 6


@pytest.fixture(scope="module")
def pipe():
    return captioned_pipeline([RED, BLUE], side=32, words_std=1.0)


@pytest.fixture(scope="module")
def x0():
    return images(1, 32)[0]


def panels(frame: torch.Tensor, count: int, side: int) -> list[torch.Tensor]:
    """The panels of a frame at one picture a panel, one pixel each."""
    step, width = side // 32, side + GAP
    return [frame[:, ::step, k * width : k * width + side : step] for k in range(count)]


def test_variations_stand_beside_the_picture_and_their_start(pipe, x0):
    strengths, options = (0.25, 1.0), {"steps": 4, "seed": 3}
    film = vary_film(pipe, x0, [RED, BLUE], strengths, n=1, **options)
    assert film.labels == ["strength 0.25", "strength 1"] * 2
    assert [(d.name, list(d.places)) for d in film.dials] == [("Caption", [RED, BLUE])]
    frames, noise = iter(film.frames), pipe.noise(1, 3)
    for caption in (RED, BLUE):
        for strength, t in zip(strengths, (250, 1000), strict=True):
            before, start, after = panels(next(frames), 3, SIDE)
            z_t = q_sample(pipe.schedule, pipe.encode(x0[None]), t, noise)
            wanted = pipe.vary(x0[None], strength, prompt=caption, noise=noise, **options)
            assert torch.equal(before, to_uint8(x0[None])[0])
            assert torch.equal(start, to_uint8(pipe.decode(z_t))[0])
            assert torch.equal(after, to_uint8(wanted)[0])


def test_many_variations_fill_a_grid_each_with_its_own_noise(pipe, x0):
    film = vary_film(pipe, x0, [RED], (1.0,), n=4, steps=2)
    assert film.dials == [] and film.frames.shape[2] == 2 * SIDE + 2
    width = film.frames.shape[3] // 3
    grid = film.frames[0, :, :, 2 * width + GAP :]
    assert not torch.equal(grid[:, :SIDE, :SIDE], grid[:, -SIDE:, :SIDE])


def test_each_mask_is_painted_anew_under_each_caption(pipe, x0):
    masks = {
        "dot": paint_mask([Stroke([(9, 9)], 6)], 32),
        "bar": paint_mask([Stroke([(4, 20), (28, 20)], 4)], 32),
    }
    options = {"steps": 2, "resample": 1, "seed": 1}
    film = inpainting_film(pipe, x0, masks, [RED, BLUE], **options)
    assert film.labels == [RED, BLUE] * 2
    assert [(d.name, list(d.places)) for d in film.dials] == [("Mask", ["dot", "bar"])]
    x, both = x0.expand(2, -1, -1, -1), torch.cat(list(masks.values()))
    frames = iter(film.frames)
    for k, mask in enumerate(masks.values()):
        for caption in (RED, BLUE):
            shown, painted = panels(next(frames), 2, 4 * SIDE)
            assert torch.equal(shown, veiled(x0[None], mask)[0])
            wanted = pipe.inpaint(x, both, prompt=caption, **options)[k]
            assert torch.equal(painted, to_uint8(wanted[None])[0])


def test_swaps_run_over_what_is_kept_and_for_how_long(pipe):
    pairs = {"red to blue": (RED, BLUE), "blue to red": (BLUE, RED)}
    film = swap_film(pipe, pairs, (0.0, 1.0), n=1, steps=2, seed=4)
    assert film.labels == ["for 0% of the steps", "for 100% of the steps"] * 4
    assert [(d.name, list(d.places)) for d in film.dials] == [
        ("Swap", list(pairs)),
        ("What is kept", ["attention", "caption"]),
    ]
    frames = iter(film.frames)
    for pair in pairs.values():
        for keep in ("attention", "caption"):
            for share in (0.0, 1.0):
                wanted = swap_word(pipe, *pair, share, 1, keep=keep, steps=2, seed=4)
                for found, due in zip(panels(next(frames), 2, SIDE), wanted, strict=True):
                    assert torch.equal(found, to_uint8(due)[0])
    one = swap_film(pipe, {"red to blue": (RED, BLUE)}, (0.5,), n=1, steps=2)
    assert [d.name for d in one.dials] == ["What is kept"]


def test_nothing_to_show_is_refused(pipe, x0):
    for film in (
        lambda: vary_film(pipe, x0, [], (1.0,)),
        lambda: inpainting_film(pipe, x0, {"all": torch.ones(1, 1, 32, 32).bool()}, []),
        lambda: swap_film(pipe, {}, (1.0,)),
    ):
        with pytest.raises(InputError, match="empty"):
            film()
