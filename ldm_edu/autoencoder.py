"""The first stage: an autoencoder whose latent is a small picture (LDM section 3.1).

Stable Diffusion v1's KL autoencoder at any size. Two arguments are added for small computers:
`patch` folds p x p pixels into channels at the door, and `linear` adds a linear path, which
starts as patch-PCA, so that the network only learns what PCA cannot do.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_edu.errors import InputError, require_sizes
from ldm_edu.layers import AttentionBlock, Downsample, ResBlock, Upsample, zero_init
from ldm_edu.pca import patch_pca

_EPS = 1e-6  # group norms of the autoencoder; the U-Net's have 1e-5


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an Autoencoder; the defaults are Stable Diffusion v1's. Raises InputError."""

    image_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)  # a width a level; each halves H and W
    blocks: int = 2  # residual blocks a level in the encoder, one more in the decoder
    patch: int = 1  # p x p pixels become channels at the door
    middle_attention: bool = True
    groups: int = 32  # of the group norms
    linear: bool = False  # add the linear path that starts as patch-PCA

    def __post_init__(self):
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON has only lists
        sizes = "image_channels", "latent_channels", "channels", "blocks", "patch", "groups"
        require_sizes(self, *sizes)
        for c in self.channels:
            if c % self.groups:
                raise InputError(f"channels {c} must divide into groups = {self.groups}")

    @property
    def factor(self) -> int:
        """f: how many pixels wide one latent position is."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def to_dict(self) -> dict:
        return asdict(self)


class DiagonalGaussian:
    """The posterior q(z | x): independent normals, mean and logvar (B, C, h, w)."""

    def __init__(self, mean: Tensor, logvar: Tensor):
        self.mean, self.logvar = mean, logvar

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, eps: Tensor | None = None) -> Tensor:
        """mean + std * eps, with eps drawn if it is not given."""
        return self.mean + self.std * (torch.randn_like(self.mean) if eps is None else eps)

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) in nats, summed over C, h, w: (B,)."""
        per_entry = self.mean**2 + self.logvar.exp() - 1 - self.logvar
        return 0.5 * per_entry.flatten(1).sum(1)


class Encoder(nn.Module):
    """(B, image_channels p^2, H, W) -> moments before quantisation (B, 2 latent, h, w)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        c, width = config, config.channels[0]
        self.conv_in = nn.Conv2d(c.image_channels * c.patch**2, width, 3, padding=1)
        self.down = nn.ModuleList()
        for level, out in enumerate(c.channels):
            blocks = [_res(width if j == 0 else out, out, c) for j in range(c.blocks)]
            if level < len(c.channels) - 1:
                blocks.append(Downsample(out, asymmetric=True))
            self.down.append(nn.Sequential(*blocks))
            width = out
        self.middle = _middle(width, c)
        self.norm_out = nn.GroupNorm(c.groups, width, eps=_EPS)
        self.conv_out = nn.Conv2d(width, 2 * c.latent_channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        h = self.conv_in(h)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.middle(h))))


class Decoder(nn.Module):
    """(B, latent, h, w) -> (B, image_channels p^2, H, W)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        c, width = config, config.channels[-1]
        self.conv_in = nn.Conv2d(c.latent_channels, width, 3, padding=1)
        self.middle = _middle(width, c)
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(c.channels))):
            blocks = [_res(width if j == 0 else out, out, c) for j in range(c.blocks + 1)]
            if level > 0:
                blocks.append(Upsample(out))
            self.up.append(nn.Sequential(*blocks))
            width = out
        self.norm_out = nn.GroupNorm(c.groups, width, eps=_EPS)
        self.conv_out = nn.Conv2d(width, c.image_channels * c.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.middle(self.conv_in(z))
        for level in self.up:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Autoencoder(nn.Module):
    """Images to scaled latents and back.

    encode(x) -> DiagonalGaussian over z, decode(z) -> x; x is (B, 3, H, W) in [-1, 1], z is
    (B, C, H/f, W/f) of about unit variance once `set_latent_scale` has been told the
    data's statistics. These two methods are the only place where the scale is applied.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = c = config
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.quant_conv = nn.Conv2d(2 * c.latent_channels, 2 * c.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(c.latent_channels, c.latent_channels, 1)
        if c.linear:
            f, dims = c.factor, (c.latent_channels, c.image_channels)
            self.linear_encoder = nn.Conv2d(dims[1], dims[0], f, stride=f)
            self.linear_decoder = nn.ConvTranspose2d(dims[0], dims[1], f, stride=f)
        # z = (latent - shift) * scale, a value a channel (LDM app. G has one for all)
        self.register_buffer("latent_shift", torch.zeros(c.latent_channels))
        self.register_buffer("latent_scale", torch.ones(c.latent_channels))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """x (B, 3, H, W) in [-1, 1], H and W divisible by f -> q(z | x), (B, C, h, w)."""
        self._check_image(x)
        moments = self.quant_conv(self.encoder(F.pixel_unshuffle(x, self.config.patch)))
        mean, logvar = moments.chunk(2, dim=1)
        if self.config.linear:
            mean = mean + self.linear_encoder(x)
        shift, scale = self._scale()
        logvar = logvar.clamp(-30, 20) + 2 * scale.log()
        return DiagonalGaussian((mean - shift) * scale, logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents z (B, C, h, w) -> images (B, 3, h f, w f), not clamped to [-1, 1]."""
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            want = f"(B, {self.config.latent_channels}, h, w)"
            raise InputError(f"z must be {want}, found {tuple(z.shape)}")
        shift, scale = self._scale()
        latent = z / scale + shift
        x = F.pixel_shuffle(self.decoder(self.post_quant_conv(latent)), self.config.patch)
        return x + self.linear_decoder(latent) if self.config.linear else x

    def forward(self, x: Tensor) -> tuple[Tensor, DiagonalGaussian]:
        """Reconstruct: x -> (x_hat, posterior), with z drawn from the posterior."""
        posterior = self.encode(x)
        return self.decode(posterior.sample()), posterior

    @torch.no_grad()
    def set_latent_scale(self, mean: Tensor, std: Tensor) -> None:
        """Make latents with the given statistics, each (C,), have mean 0 and variance 1.

        They are those of latents without a scale, as `latents.measure_scale` finds them.
        Raises InputError for other shapes, or a channel that never changes: it has no scale.
        """
        if not mean.shape == std.shape == self.latent_scale.shape:
            want, found = tuple(self.latent_scale.shape), (tuple(mean.shape), tuple(std.shape))
            raise InputError(f"mean and std must have shape {want}, found {found}")
        if not ((std > 0) & std.isfinite() & mean.isfinite()).all():  # NaN too
            found = f"{std.tolist()} and {mean.tolist()}"
            raise InputError(f"std must be positive, mean finite, found {found}")
        self.latent_shift.copy_(mean)
        self.latent_scale.copy_(1 / std)

    @torch.no_grad()
    def start_as_pca(self, x: Tensor, whiten: float = 1.0) -> None:
        """Set the linear path to patch-PCA of x (B, 3, H, W) and the network's ends to zero.

        The whole then is the best linear autoencoder of its latent size. whiten: how alike the
        channels' spreads become, from 0 (PCA's own, the first by far the largest) to 1 (all 1).
        Raises InputError without `linear=True`, or for `whiten` outside [0, 1].
        """
        if not self.config.linear:
            raise InputError("start_as_pca needs an autoencoder with linear=True")
        if not 0 <= whiten <= 1:
            raise InputError(f"whiten must lie in [0, 1], found {whiten}")
        self._check_image(x)
        basis, mean, std = patch_pca(x, self.config.factor, self.config.latent_channels)
        f, c = self.config.factor, self.config.image_channels
        std = std**whiten
        self.linear_encoder.weight.copy_((basis / std).T.reshape(-1, c, f, f))
        self.linear_encoder.bias.copy_(-(basis / std).T @ mean)
        self.linear_decoder.weight.copy_((basis * std).T.reshape(-1, c, f, f))
        self.linear_decoder.bias.copy_(x.mean((0, 2, 3)))
        zero_init(self.decoder.conv_out)
        zero_init(self.quant_conv)
        self.quant_conv.bias[self.config.latent_channels :] = -8.0  # small std at first

    def _scale(self) -> tuple[Tensor, Tensor]:
        return self.latent_shift[:, None, None], self.latent_scale[:, None, None]

    def _check_image(self, x: Tensor) -> None:
        c, f = self.config.image_channels, self.config.factor
        if x.ndim != 4 or x.shape[1] != c or x.shape[2] % f or x.shape[3] % f:
            want = f"(B, {c}, H, W) with H and W divisible by {f}"
            raise InputError(f"images must be {want}, found {tuple(x.shape)}")
        if not x.is_floating_point():
            raise InputError(f"images must be float in [-1, 1], found {x.dtype}")


def _res(in_channels: int, out_channels: int, c: AutoencoderConfig) -> ResBlock:
    return ResBlock(in_channels, out_channels, time_dim=None, groups=c.groups, eps=_EPS)


def _middle(width: int, c: AutoencoderConfig) -> nn.Sequential:
    attention = [AttentionBlock(width, c.groups, _EPS)] if c.middle_attention else []
    return nn.Sequential(_res(width, width, c), *attention, _res(width, width, c))
