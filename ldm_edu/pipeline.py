"""The parts joined: noise -> denoised latent -> image."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ldm_edu import checkpoint, samplers
from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.diffusion import Parameterisation, Rule, State, denoise, predictor
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.unet import UNet, UNetConfig

_FORMAT = "ldm_edu.LatentDiffusion"


class LatentDiffusion:
    """An autoencoder, a denoiser and a schedule, with the methods that a user calls.

    image_size: H = W of the images it was trained on; sampling makes that size by default.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        unet: UNet,
        schedule: NoiseSchedule,
        parameterisation: Parameterisation = "v",
        image_size: int = 32,
    ):
        want = (autoencoder.config.latent_channels,) * 2
        found = (unet.config.in_channels, unet.config.out_channels)
        if found != want:
            raise InputError(
                f"the U-Net maps {found} channels, the autoencoder's latent has {want[0]}"
            )
        if image_size < 1 or image_size % autoencoder.config.factor:
            f = autoencoder.config.factor
            raise InputError(f"image_size must be a multiple of f = {f}, found {image_size}")
        self.autoencoder, self.unet = autoencoder.eval(), unet.eval()
        self.schedule, self.parameterisation = schedule, parameterisation
        self.image_size = image_size

    @property
    def device(self) -> torch.device:
        return self.autoencoder.latent_scale.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        side = self.image_size // self.autoencoder.config.factor
        return self.autoencoder.config.latent_channels, side, side

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> z0 (B, C, h, w), scaled: the posterior's mean."""
        return self.autoencoder.encode(x.to(self.device)).mean

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) in [-1, 1], clamped here, once."""
        return self.autoencoder.decode(z.to(self.device)).clamp(-1, 1).float().cpu()

    def noise(self, n: int, seed: int = 0) -> Tensor:
        """Starting noise z_T (n, C, h, w); image i depends on (seed, i) only, not on n."""
        draws = [
            torch.randn(self.latent_shape, generator=_generator(seed, i)) for i in range(n)
        ]
        return torch.stack(draws).to(self.device)

    @torch.inference_mode()
    def denoise(
        self,
        n: int = 1,
        *,
        sampler: str = "ddim",
        steps: int = 50,
        eta: float = 0.0,
        seed: int = 0,
        z_T: Tensor | None = None,
    ) -> Iterator[State]:
        """Sample n latents, yielding State(t, z_t, z0_hat) at every step; the last has t = 0.

        sampler: "ddim" (with `eta`) or "ddpm". steps: 1..T. z_T: (n, C, h, w) noise to start
        from instead of `noise(n, seed)`. Raises InputError.
        """
        if n < 1:
            raise InputError(f"n must be at least 1, found {n}")
        z_T = self.noise(n, seed) if z_T is None else z_T.to(self.device)
        if z_T.shape[:2] != (n, self.latent_shape[0]):
            want = (n, *self.latent_shape)
            raise InputError(f"z_T must have shape {want}, found {tuple(z_T.shape)}")
        predict = predictor(self.unet, self.schedule, self.parameterisation)
        timesteps = self.schedule.timesteps(steps)
        randn = _stream(n, seed)
        yield from denoise(predict, self.schedule, z_T, _rule(sampler, eta), timesteps, randn)

    def sample(self, n: int = 1, **options) -> Tensor:
        """n images, float32 (n, 3, H, W) in [-1, 1] on the CPU; options as of `denoise`."""
        *_, last = self.denoise(n, **options)
        return self.decode(last.z_t)

    def save(self, folder: str | Path, **notes) -> None:
        """Write a checkpoint folder; `notes` (JSON-able) are kept in its config.json."""
        config = {
            "format": _FORMAT,
            "autoencoder": self.autoencoder.config.to_dict(),
            "unet": self.unet.config.to_dict(),
            "schedule": self.schedule.to_dict(),
            "parameterisation": self.parameterisation,
            "image_size": self.image_size,
            "notes": notes,
        }
        tensors = {"autoencoder": self.autoencoder.state_dict(), "unet": self.unet.state_dict()}
        checkpoint.save(folder, config, tensors)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "LatentDiffusion":
        """Read a checkpoint folder, verified. Raises CheckpointError."""
        config, tensors = checkpoint.load(folder)
        if config.get("format") != _FORMAT:
            raise CheckpointError(
                f"{folder} holds {config.get('format', 'something else')}, not {_FORMAT}"
            )
        autoencoder = Autoencoder(AutoencoderConfig(**config["autoencoder"]))
        unet = UNet(UNetConfig(**config["unet"]))
        checkpoint.load_into(autoencoder, tensors["autoencoder"], "autoencoder")
        checkpoint.load_into(unet, tensors["unet"], "unet")
        device = pick_device(device)
        return cls(
            autoencoder.to(device),
            unet.to(device),
            NoiseSchedule(**config["schedule"]),
            config["parameterisation"],
            config["image_size"],
        )


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is CUDA if there is one, else Apple's MPS, else the CPU. Raises InputError."""
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):
        raise InputError(
            f"device {device!r} is not available here; use 'auto' or 'cpu'"
        ) from None


def _rule(sampler: str, eta: float) -> Rule:
    rules = {"ddpm": samplers.ddpm, "ddim": partial(samplers.ddim, eta=eta)}
    if sampler not in rules:
        raise InputError(f"sampler must be one of {sorted(rules)}, found {sampler!r}")
    return rules[sampler]


def _generator(seed: int, i: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)


def _stream(n: int, seed: int) -> Callable[[Tensor], Tensor]:
    """randn(like) whose image i depends on (seed, i) only."""
    generators = [_generator(seed + 500_009, i) for i in range(n)]

    def randn(like: Tensor) -> Tensor:
        rows = [torch.randn(like.shape[1:], generator=g) for g in generators]
        return torch.stack(rows).to(like)

    return randn
