"""The autoencoder's losses against their definitions."""

import pytest
import torch
from helpers import normal
from torch import nn

from ldm_edu.autoencoder import DiagonalGaussian
from ldm_edu.errors import InputError
from ldm_edu.losses import (
    PatchDiscriminator,
    adaptive_weight,
    autoencoder_loss,
    discriminator_loss,
    generator_loss,
    perceptual_distance,
)


def two_maps(x):
    """Features of two resolutions: the image itself and its halves' products."""
    return [x, torch.cat([x[..., ::2, ::2] ** 2, x[..., 1::2, 1::2]], dim=1)]


# ---- reconstruction and KL


def test_it_is_the_papers_sum_divided_by_the_pixel_values():
    """CompVis: sum of |x - x_hat| over an image + 1e-6 times its summed KL, mean over all."""
    x, x_hat = normal(4, 3, 6, 5), normal(4, 3, 6, 5, seed=1)
    q = DiagonalGaussian(normal(4, 2, 2, 2), normal(4, 2, 2, 2, seed=1))
    for weight in (1e-6, 0.3):
        sums = [(x[i] - x_hat[i]).abs().sum() + weight * q.kl()[i] for i in range(4)]
        expected = sum(sums).item() / 4 / (3 * 6 * 5)
        found = autoencoder_loss(x, x_hat, q.kl(), kl_weight=weight)
        assert found.shape == () and found.item() == pytest.approx(expected, rel=1e-12)
    default = autoencoder_loss(x, x_hat, q.kl())
    assert default == autoencoder_loss(x, x_hat, q.kl(), kl_weight=1e-6)


def test_perceptual_part_is_added_with_its_weight():
    x, x_hat, kl = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), torch.zeros(2)
    plain = autoencoder_loss(x, x_hat, kl)
    distance = perceptual_distance(x, x_hat, two_maps).mean()
    for weight in (1.0, 0.2):
        found = autoencoder_loss(x, x_hat, kl, features=two_maps, perceptual_weight=weight)
        torch.testing.assert_close(found, plain + weight * distance)


def test_a_perfect_reconstruction_with_a_perfect_posterior_costs_nothing():
    x = normal(2, 3, 4, 4)
    assert autoencoder_loss(x, x.clone(), torch.zeros(2), features=two_maps) == 0


def test_images_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(2, 3, 4, 4\).*\(2, 1, 4, 4\)"):  # would broadcast
        autoencoder_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), torch.zeros(2))


# ---- perceptual distance


def test_perceptual_distance_is_its_formula():
    x, x_hat = normal(2, 3, 4, 6), normal(2, 3, 4, 6, seed=1)
    for i in range(2):
        total = 0.0
        for f, g in zip(two_maps(x), two_maps(x_hat), strict=True):
            _, _, height, width = f.shape
            for row in range(height):
                for column in range(width):
                    a, b = f[i, :, row, column], g[i, :, row, column]
                    d = a / (a @ a).sqrt() - b / (b @ b).sqrt()
                    total += (d @ d).item() / (height * width)
        found = perceptual_distance(x, x_hat, two_maps)[i].item()
        assert found == pytest.approx(total, rel=1e-12)


def test_perceptual_distance_is_zero_iff_the_directions_agree():
    """Scaling the features at a position, each by its own factor, changes nothing."""
    f, f_hat = normal(2, 5, 3, 3), normal(2, 5, 3, 3, seed=1)
    scale = 0.1 + normal(2, 1, 3, 3, seed=2).abs()

    def as_it_is(x):
        return [x]

    assert perceptual_distance(f, f, as_it_is).tolist() == [0, 0]
    assert (perceptual_distance(f, f_hat, as_it_is) > 0).all()
    torch.testing.assert_close(
        perceptual_distance(f * scale, f, as_it_is), torch.zeros(2).double(), rtol=0, atol=1e-14
    )
    torch.testing.assert_close(
        perceptual_distance(f * scale, f_hat, as_it_is), perceptual_distance(f, f_hat, as_it_is)
    )
    torch.testing.assert_close(  # opposite unit vectors are 2 apart
        perceptual_distance(f, -f, as_it_is), torch.full((2,), 4.0).double()
    )


# ---- the critic


def test_hinge_loss_has_its_values():
    def d(real, fake):
        return discriminator_loss(torch.tensor(real), torch.tensor(fake)).item()

    assert d([1.0], [-1.0]) == 0  # right, by the margin
    assert d([5.0], [-9.0]) == 0  # no reward for more
    assert d([0.0], [0.0]) == 1  # undecided
    assert d([-1.0], [-1.0]) == 1 and d([1.0], [1.0]) == 1  # wrong on one side
    assert d([-2.0], [3.0]) == 3.5
    assert d([1.0, -1.0], [-1.0, -1.0]) == 0.5  # a mean over patches


def test_generator_wants_the_critic_to_say_real():
    assert generator_loss(torch.tensor([1.0, 3.0])).item() == -2
    fake = torch.zeros(3, requires_grad=True)
    generator_loss(fake).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize(("layers", "size"), [(1, 16), (2, 34), (3, 70)])
def test_critic_sees_patches_of_this_size(layers, size):
    """What the middle logit depends on, found by its gradient."""
    torch.manual_seed(0)
    critic = PatchDiscriminator(width=2, layers=layers).eval()  # batch norm links all pixels
    x = torch.randn(1, 3, 128, 128, requires_grad=True)
    logits = critic(x)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    seen = x.grad[0].abs().sum(0) > 0
    for axis in (0, 1):
        where = seen.any(axis).nonzero().flatten()
        assert where[-1] - where[0] + 1 == size


def test_critic_gives_a_logit_a_patch():
    assert PatchDiscriminator(width=4)(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6, 6)
    assert PatchDiscriminator(1, width=4, layers=1)(torch.zeros(2, 1, 32, 32)).shape[1] == 1


# ---- adaptive weight


def losses(scale=1.0):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    h = normal(5, 4)
    return layer.weight, layer(h).abs().mean(), scale * (layer(h) ** 2).sum()


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_adaptive_weight_balances_the_gradients(scale):
    weight, rec, adv = losses(scale)
    found = adaptive_weight(rec, adv, weight)
    assert found.shape == () and not found.requires_grad
    g_rec, g_adv = (torch.autograd.grad(x, weight)[0].norm() for x in (rec, found * adv))
    assert g_adv.item() == pytest.approx(g_rec.item(), rel=1e-4)  # but for the 1e-4 below


def test_adaptive_weight_is_bounded_where_the_critic_is_flat():
    weight, rec, adv = losses()
    norm = torch.autograd.grad(rec, weight, retain_graph=True)[0].norm()
    torch.testing.assert_close(adaptive_weight(rec, 0 * adv, weight), norm / 1e-4)
    assert adaptive_weight(1e9 * rec, 0 * adv, weight) == 1e4
    assert adaptive_weight(0 * rec, adv, weight) == 0


def test_adaptive_weight_leaves_the_graph_for_the_step():
    weight, rec, adv = losses()
    (rec + adaptive_weight(rec, adv, weight) * adv).backward()
    assert weight.grad is not None
