"""Seeds: what they fix, which are refused, and numbers mixed into one."""

import numpy as np
import pytest
import torch

from ldm_edu.errors import InputError
from ldm_edu.judges import train_classifier
from ldm_edu.quickstart import Plan
from ldm_edu.seeds import mix, noise_of, noise_stream, seeded
from ldm_edu.train_model import Training
from ldm_edu.training import TrainConfig

DOORS = {
    "noise_of": lambda seed: noise_of(1, seed, (4,)),
    "noise_stream": lambda seed: noise_stream(1, seed),
    "TrainConfig": lambda seed: TrainConfig(steps=2, seed=seed),
    "Plan": lambda seed: Plan(seed=seed),
    "Training": lambda seed: Training("shapes", seed),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("seed", [-1, 2**32, None, 1.5, "0"])
def test_a_seed_that_torch_would_cut_short_or_not_read_is_refused(door, seed):
    with pytest.raises(InputError, match=rf"from 0 to 2\*\*32 - 1, found {seed!r}"):
        DOORS[door](seed)


@pytest.mark.parametrize("door", DOORS)
def test_every_other_seed_is_taken(door):
    for seed in (0, 2**32 - 1):
        DOORS[door](seed)


def test_a_judges_bad_seed_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="found -1"):
        train_classifier("cifar10", None, tmp_path / "a", seed=-1)
    assert not (tmp_path / "a").exists()


def test_image_i_depends_on_seed_and_i_only():
    many = noise_of(4, 7, (2, 3))
    assert torch.equal(noise_of(2, 7, (2, 3)), many[:2])
    assert len({tuple(n.flatten().tolist()) for n in many}) == 4
    assert not torch.equal(noise_of(4, 8, (2, 3)), many)
    next_noise = noise_stream(2, 7)(many[:2].double())
    assert next_noise.dtype == torch.float64
    assert torch.equal(noise_stream(4, 7)(many)[:2].double(), next_noise)
    assert not torch.equal(next_noise, many[:2].double())


def test_seeds_of_neighbours_are_unrelated():
    pairs = {(a, b): mix(a, b) for a in range(40) for b in range(40)}
    assert len(set(pairs.values())) == 1600  # mix(a, b) is not mix(b, a) either
    assert all(0 <= seed < 2**63 for seed in pairs.values())
    bits = np.unpackbits(np.array(list(pairs.values()), dtype=">u8").view(np.uint8)).reshape(
        -1, 64
    )
    ones = bits.mean(0)[1:]
    assert ((ones > 0.4) & (ones < 0.6)).all()


def test_seeded_is_repeatable_and_restores():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = []
    for numbers in ((1, 2), (1, 2), (2, 1)):
        with seeded(*numbers):
            draws.append(torch.randn(3))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    with pytest.raises(TypeError), seeded(1):
        torch.randn("three")
    assert torch.equal(torch.get_rng_state(), before)
