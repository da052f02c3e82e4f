"""Walks through latent space: the edits are what they say, the films show them in order."""

import math

import pytest
import torch

from ldm_edu import NoiseSchedule
from ldm_edu.errors import InputError
from ldm_edu.images import latent_to_rgb
from ldm_edu.lab.latent_space import (
    SIDE,
    along,
    latent_film,
    mix_film,
    noised_where,
    scaled_channel,
    straight,
)

SHARES = (0.0, 0.25, 0.5, 1.0)


def draws(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def decode(z: torch.Tensor) -> torch.Tensor:
    pictures = z[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)
    return pictures.clamp(-1, 1).float()


def test_a_straight_line_loses_variance_between_noises():
    a, b = draws(0, 4, 50, 50), draws(1, 4, 50, 50)
    assert math.isclose(straight(a, b, [0.5]).var().item(), 0.5, abs_tol=0.03)
    assert torch.allclose(straight(a, b, SHARES)[1], 0.75 * a + 0.25 * b)
    assert torch.equal(straight(a, b, SHARES)[[0, 3]], torch.stack([a, b]))


def test_a_direction_is_added_as_often_as_it_says():
    z, direction = draws(0, 2, 4, 3, 3), draws(1, 4, 3, 3)
    walk = along(z, direction, (-1.0, 0.0, 2.0))
    assert walk.shape == (3, 2, 4, 3, 3)
    assert torch.equal(walk[1], z)
    assert torch.allclose(walk[0] + direction, z)
    assert torch.allclose(walk[2][1] - z[1], 2 * direction)


def test_one_channel_is_scaled_and_the_others_and_z_stay():
    z = draws(0, 2, 4, 3, 3)
    before = z.clone()
    edited = scaled_channel(z, 2, (-1.0, 0.0, 1.0))
    assert torch.equal(z, before)
    assert torch.equal(edited[:, :, [0, 1, 3]], z[:, [0, 1, 3]].expand(3, -1, -1, -1, -1))
    assert torch.equal(edited[0, :, 2], -z[:, 2])
    assert not edited[1, :, 2].any()
    assert torch.equal(edited[2], z)
    for wrong in (-1, 4):
        with pytest.raises(InputError):
            scaled_channel(z, wrong, (0.0,))


def test_noise_is_put_only_where_it_is_wanted():
    schedule, z, eps = NoiseSchedule(), draws(0, 2, 4, 3, 3), draws(1, 2, 4, 3, 3)
    where = torch.eye(3, dtype=torch.bool)
    walk = noised_where(schedule, z, where, eps, (0, 300, 1000))
    assert torch.equal(walk[..., ~where], z[..., ~where].expand(3, -1, -1, -1))
    ab = schedule.alpha_bar[300]
    wanted = ab.sqrt() * z + (1 - ab).sqrt() * eps
    assert torch.allclose(walk[1][..., where], wanted[..., where])
    assert torch.allclose(walk[0], z)
    for wrong in (where.float(), where[:2]):
        with pytest.raises(InputError):
            noised_where(schedule, z, wrong, eps, (0,))


def test_the_film_shows_latents_and_pictures_of_all_shots_in_order():
    shots = {"one": draws(0, 3, 4, 4, 2, 2).float(), "two": draws(1, 3, 4, 4, 2, 2).float()}
    film = latent_film(decode, shots, ["a", "b", "c"], "Edit", "Step", "Latents.", start=1)
    assert film.labels == ["a", "b", "c"] * 2
    assert [(dial.name, list(dial.places)) for dial in film.dials] == [("Edit", ["one", "two"])]
    z = torch.cat([shots["one"], shots["two"]])
    colours = latent_to_rgb(z.flatten(0, 1)).unflatten(0, (6, 4))  # one palette for all
    unit = SIDE // 2  # output pixels of a latent position
    panel = 2 * SIDE + 2 + 6
    for k in range(6):
        seen = film.frames[k, :, unit // 2 : SIDE : unit, unit // 2 : SIDE : unit]
        assert torch.equal(seen, colours[k, 0])
        right = film.frames[k, :, 8 : SIDE : SIDE // 8, panel + 8 : panel + SIDE : SIDE // 8]
        wanted = ((decode(z[k])[0] + 1) * 127.5).round()
        assert (right.float() - wanted).abs().max() <= 1
    last = film.frames[
        5, :, SIDE + 2 + unit // 2 :: unit, SIDE + 2 + unit // 2 : 2 * SIDE : unit
    ]
    assert torch.equal(last, colours[5, 3])


def test_one_shot_needs_no_dial_and_unlike_shots_are_refused():
    z = draws(0, 3, 1, 4, 2, 2).float()
    assert latent_film(decode, {"one": z}, "abc", "Edit", "Step", "Latents.").dials == []
    for shots, labels in (({"one": z, "two": z[:2]}, "abc"), ({"one": z}, "ab")):
        with pytest.raises(InputError):
            latent_film(decode, shots, labels, "Edit", "Step", "Latents.")


def test_the_mix_has_a_panel_a_way_and_opens_halfway():
    a, b = draws(0, 1, 3, 8, 8).tanh(), draws(1, 1, 3, 8, 8).tanh()
    ways = {"there": straight(a, b, SHARES).float(), "back": straight(b, a, SHARES).float()}
    film = mix_film(ways, SHARES, "Two pictures mixed.")
    assert list(film.panels) == ["there", "back"]
    assert film.start == 2
    assert film.labels[1] == "25% of the second"
    left, right = film.frames[..., :SIDE], film.frames[..., SIDE + 6 :]
    assert torch.equal(left[0], right[3])
    assert torch.equal(left[3], right[0])
    assert not torch.equal(left[0], left[3])
