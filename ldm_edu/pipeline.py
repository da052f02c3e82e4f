"""The parts joined: noise -> denoised latent -> image."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldm_edu import inpainting, tasks
from ldm_edu.autoencoder import Autoencoder
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.diffusion import Parameterisation, check_parameterisation
from ldm_edu.errors import InputError
from ldm_edu.pipeline_files import read_pipeline, write_pipeline
from ldm_edu.samplers import rule_named
from ldm_edu.sampling import Predict, State, denoise, last_state, predictor
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.seeds import noise_of, noise_stream
from ldm_edu.text import TextEncoder, WordTokenizer
from ldm_edu.unet import UNet

Prompt = str | Sequence[str] | None
_MOST = 2.0  # of an image's values: resizing by cubics leaves up to 1.9


class LatentDiffusion:
    """An autoencoder, a denoiser, a schedule and perhaps words, with the methods a user calls.

    image_size: H = W of the images it was trained on; sampling makes that size by default.
    tokenizer, text_encoder: captions -> ids -> context; both or neither, and the U-Net has
    cross-attention of that width. guidance: how much a prompt counts unless a call says so.
    grid: the noise levels it is sampled at; trailing, down to clean, by default.
    Raises InputError for parts that do not fit.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        unet: UNet,
        schedule: NoiseSchedule,
        parameterisation: Parameterisation = "v",
        image_size: int = 32,
        tokenizer: WordTokenizer | ClipTokenizer | None = None,
        text_encoder: TextEncoder | None = None,
        guidance: float = 2.0,
        grid: Grid | None = None,
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
        width = None if text_encoder is None else text_encoder.config.width
        if unet.config.context_dim != width or (tokenizer is None) != (width is None):
            raise InputError(
                f"the U-Net's context_dim is {unet.config.context_dim}, the text encoder's "
                f"width {width}, the tokenizer {type(tokenizer).__name__}: they must agree"
            )
        check_parameterisation(parameterisation)
        _check_guidance(guidance)
        for module in (autoencoder, unet):  # the layout that convolutions on a CPU like best
            module.eval().to(memory_format=torch.channels_last)
        self.autoencoder, self.unet = autoencoder, unet
        self.tokenizer = tokenizer
        self.text_encoder = None if text_encoder is None else text_encoder.eval()
        self.guidance = guidance
        self.schedule, self.parameterisation = schedule, parameterisation
        self.grid = grid or Grid()
        self.image_size = image_size
        side, fold = self.latent_shape[1], 2 ** (len(unet.config.channels) - 1)
        if side % fold:
            raise InputError(
                f"image_size {image_size} makes latents of {side} x {side}: the U-Net's "
                f"{len(unet.config.channels)} levels need a multiple of {fold}"
            )
        if (lowest := self.timesteps(1)[0]) <= self.grid.final:
            found = self.grid.final
            raise InputError(f"the grid's final level must be below {lowest}, found {found}")

    @property
    def device(self) -> torch.device:
        return self.autoencoder.latent_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser, and so of z_t; the autoencoder may be wider."""
        return self.unet.conv_in.weight.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        side = self.image_size // self.autoencoder.config.factor
        return self.autoencoder.config.latent_channels, side, side

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> z0 (B, C, h, w), scaled: the posterior's mean.

        Raises InputError, also for NaN and for values that lie far outside.
        """
        x = _like(x, self.autoencoder.latent_scale)
        if x.is_floating_point() and not (x.abs() <= _MOST).all():  # NaN too
            found = f"{x.min():.4g} to {x.max():.4g}"
            raise InputError(f"images must lie in [-1, 1], found values from {found}")
        return self.autoencoder.encode(x).mean

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) in [-1, 1], clamped here, once."""
        z = _like(z, self.autoencoder.latent_scale)
        return self.autoencoder.decode(z).clamp(-1, 1).float().cpu()

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Tensor:
        """Captions -> context (B, N, D). Raises InputError if the model knows no words."""
        if self.tokenizer is None:
            raise InputError("this model was trained without captions: leave the prompt out")
        return self.text_encoder(self.tokenizer(captions).to(self.device))

    def noise(self, n: int, seed: int = 0) -> Tensor:
        """Starting noise z_T (n, C, h, w); image i depends on (seed, i) only, not on n."""
        return noise_of(n, seed, self.latent_shape).to(self.device, self.dtype)

    @torch.no_grad()
    def denoise(
        self,
        n: int = 1,
        *,
        prompt: Prompt = None,
        guidance: float | None = None,
        sampler: str = "dpm++",
        steps: int = 20,
        eta: float = 0.0,
        seed: int = 0,
        z_T: Tensor | None = None,
    ) -> Iterator[State]:
        """Sample n latents, yielding State(t, z_t, z0_hat) at every step; the last is clean.

        prompt: what to show, one caption for all or a list of n; None is no condition.
        guidance: how much the prompt counts: 1 as in the data, more exaggerates it; the
        model's own by default; without a prompt it changes nothing. sampler: "ddpm", "ddim"
        (with `eta`: 0 adds no noise on the way, 1 as much as DDPM), "dpm++", "heun" (two calls
        a step) or "plms". steps: 1..T, or as many as this model's grid has room for.
        z_T: (n, C, h, w) noise to start from instead of `noise(n, seed)`. Raises InputError.
        """
        if not isinstance(n, int) or n < 1:
            raise InputError(f"n must be a whole number of at least 1, found {n!r}")
        z_T = self.noise(n, seed) if z_T is None else _like(z_T, self.unet.conv_in.weight)
        if z_T.shape[:2] != (n, self.latent_shape[0]):
            want = (n, *self.latent_shape)
            raise InputError(f"z_T must have shape {want}, found {tuple(z_T.shape)}")
        predict = self.predictor(n, prompt, guidance)
        timesteps, rule = self.timesteps(steps), rule_named(sampler, eta)
        z_T, randn = z_T.to(self.device, self.dtype), noise_stream(n, seed)
        yield from denoise(predict, self.schedule, z_T, rule, timesteps, randn, self.grid.final)

    def sample(self, n: int = 1, **options) -> Tensor:
        """n images, float32 (n, 3, H, W) in [-1, 1] on the CPU; options as of `denoise`."""
        return self.decode(last_state(self.denoise(n, **options)).z_t)

    # the tasks, functions of their own files; here they become methods
    vary = tasks.vary
    inpaint = inpainting.inpaint
    interpolate = tasks.interpolate

    def timesteps(self, steps: int) -> list[int]:
        """The levels that a sampler visits in `steps` steps on this model's grid, falling."""
        grid = self.grid
        return self.schedule.timesteps(steps, grid.spacing, grid.offset, grid.lowest)

    def predictor(
        self, n: int, prompt: Prompt = None, guidance: float | None = None
    ) -> Predict:
        """predict(z_t, t) -> Prediction for n latents, with a prompt as in `denoise`.

        Raises InputError for another number of captions than n, or if it knows no words.
        """
        guidance = self.guidance if guidance is None else guidance
        _check_guidance(guidance)
        if self.tokenizer is None and prompt is None:
            return predictor(self.unet, self.schedule, self.parameterisation)
        captions = [prompt or ""] * n if prompt is None or isinstance(prompt, str) else prompt
        if not hasattr(captions, "__len__"):
            found = type(prompt).__name__
            raise InputError(f"prompt must be a str, a list of n str or None, found {found}")
        if len(captions) != n:
            raise InputError(f"prompt has {len(captions)} captions for n = {n} images")
        return predictor(
            self.unet,
            self.schedule,
            self.parameterisation,
            self.embed(captions),
            self.embed([""] * n),
            1.0 if prompt is None else guidance,
        )

    def save(self, folder: str | Path, *, half: bool = False, **notes) -> None:
        """Write a checkpoint folder; `notes` (JSON-able) are kept in its config.json.

        half: weights as float16, half the size; they are loaded as float32 all the same.
        Raises InputError for weights that float16 cannot hold, and as `checkpoint.save` does.
        """
        write_pipeline(folder, self, half, notes)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "LatentDiffusion":
        """Read a checkpoint folder, verified, as float32. Raises CheckpointError."""
        return read_pipeline(cls, folder, pick_device(device))


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


def _check_guidance(guidance: float) -> None:
    if not isinstance(guidance, int | float) or not math.isfinite(guidance):
        raise InputError(f"guidance must be a finite number, found {guidance!r}")


def _like(x: Tensor, like: Tensor) -> Tensor:  # bytes stay bytes, and are refused
    if not isinstance(x, Tensor):
        raise InputError(f"images, latents and noise must be tensors, found {type(x).__name__}")
    return x.to(like) if x.is_floating_point() else x.to(like.device)
