"""What an autoencoder is asked for: closeness, a tame latent, and texture that fools a critic.

LDM app. G and CompVis `contperceptual.py`, eq. 25: L1 + perceptual + KL + adversarial. There,
errors and KL are *sums* over an image; here, both are divided by the number of pixel values,
so that `kl_weight` keeps the published meaning (1e-6 on the sum) and losses read as means.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_edu.errors import InputError

Features = Callable[[Tensor], list[Tensor]]


def autoencoder_loss(
    x: Tensor,
    x_hat: Tensor,
    kl: Tensor,
    kl_weight: float = 1e-6,
    features: Features | None = None,
    perceptual_weight: float = 1.0,
) -> Tensor:
    """Mean absolute error + weight * perceptual + weight * KL, a scalar.

    x, x_hat: (B, C, H, W) in [-1, 1]; kl: (B,) nats summed over the latent, as
    `DiagonalGaussian.kl` gives it. Raises InputError if the shapes of x and x_hat differ.
    """
    if x.shape != x_hat.shape:
        raise InputError(f"x is {tuple(x.shape)}, but its reconstruction {tuple(x_hat.shape)}")
    loss = (x - x_hat).abs().mean() + kl_weight * kl.mean() / x[0].numel()
    if features is not None:
        loss = loss + perceptual_weight * perceptual_distance(x, x_hat, features).mean()
    return loss


def perceptual_distance(x: Tensor, x_hat: Tensor, features: Features) -> Tensor:
    """Distance of two images in a network's features, as LPIPS measures it: (B,).

    Zhang et al. 2018, arXiv 1801.03924, eq. 1 with unit weights: the channels at each position
    are scaled to length 1, squared differences are averaged over positions, layers are summed.
    `features` maps (B, 3, H, W) in [-1, 1] to a list of maps (B, C_l, H_l, W_l).
    """
    total = x.new_zeros(len(x))
    for f, f_hat in zip(features(x), features(x_hat), strict=True):
        difference = F.normalize(f, dim=1) - F.normalize(f_hat, dim=1)
        total = total + difference.square().sum(1).flatten(1).mean(1)
    return total


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: (B, 3, H, W) -> logits (B, 1, h, w), high = real.

    PatchGAN (Isola et al. 2017, arXiv 1611.07004, sec. 3.2.2): strided 4x4 convolutions with
    batch norm. `layers` = 3 sees 70 pixels a patch; 1 or 2 suit images of 32 or 64 pixels.
    """

    def __init__(self, image_channels: int = 3, width: int = 64, layers: int = 3):
        super().__init__()
        stack: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            before, after = width * min(2 ** (i - 1), 8), width * min(2**i, 8)
            stride = 2 if i < layers else 1
            stack += [
                nn.Conv2d(before, after, 4, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        self.net = nn.Sequential(*stack, nn.Conv2d(width * min(2**layers, 8), 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the critic on its logits (Lim & Ye 2017, arXiv 1705.02894), a scalar."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """What the autoencoder pays where the critic sees through its reconstruction, a scalar."""
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Weight that gives both losses equal gradients at the decoder's last layer, detached.

    lambda = |grad rec| / (|grad adv| + 1e-4), at most 1e4 (Esser et al. 2021, arXiv 2012.09841,
    eq. 7). Both losses are scalars with a graph that reaches `last_layer`.
    """
    g_rec, g_adv = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0]
        for loss in (reconstruction, adversarial)
    )
    return (g_rec.norm() / (g_adv.norm() + 1e-4)).clamp(0, 1e4).detach()
