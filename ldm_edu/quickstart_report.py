"""Gather what a run's page shows: pictures, films, numbers, all from the trained model."""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ldm_edu
from ldm_edu.data import ImageDataset
from ldm_edu.data.judge import judge
from ldm_edu.diffusion import q_sample
from ldm_edu.film import pick
from ldm_edu.images import latent_to_rgb, to_uint8
from ldm_edu.latents import image_batch
from ldm_edu.metrics import psnr
from ldm_edu.pca import patch_pca, pca_reconstruct
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.report import Denoising, Noising, Reconstruction, Report, write_report
from ldm_edu.sampling import State
from ldm_edu.seeds import noise_of

_TEST_IMAGES, _SHOWN, _SAMPLES, _FRAMES = 1000, 16, 64, 21


def write_quickstart_report(
    path: Path,
    pipe: LatentDiffusion,
    train_set: ImageDataset,
    test_set: ImageDataset,
    samples: Tensor,
    sampling: dict[str, Any],
    losses: dict[str, list[float]],
    rates: dict[str, float],
    command: str,
) -> None:
    """Measure, draw and write report.html.

    samples: uint8 (N, 3, H, W), made by `pipe.sample` with the options `sampling`, N prompts
    and a seed among them. losses and rates: stage -> loss of every step, and -> images trained
    on per second.
    """
    reconstruction, pca_psnr = reconstruct(pipe, train_set, test_set)
    shown = image_batch(test_set.images, torch.arange(_SHOWN))
    z0 = pipe.encode(shown)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (pipe.autoencoder, pipe.unet)]
    c, h, w = pipe.latent_shape
    summary = [
        (
            "Data",
            f"{train_set.name}: {len(train_set.images):,} + {len(test_set.images):,} for tests",
        ),
        ("Image", f"3 x {shown.shape[2]} x {shown.shape[3]} = {shown[0].numel():,} numbers"),
        ("Latent", f"{c} x {h} x {w} = {c * h * w:,} numbers"),
        ("Autoencoder", f"{sizes[0]:,} parameters"),
        ("trained for", _length("autoencoder", losses, rates)),
        ("Reconstruction", f"{reconstruction.psnr_overall:.2f} dB (patch-PCA {pca_psnr:.2f})"),
        ("Denoiser", f"{sizes[1]:,} parameters"),
        ("trained for", _length("diffusion", losses, rates)),
        *([("Judge", judged(samples))] if train_set.name == "shapes" else []),
        ("Computed on", f"{pipe.device.type}, {torch.get_num_threads()} threads"),
    ]
    report = Report(
        title=f"Latent diffusion on {train_set.name}",
        summary=summary,
        images=train_set.images[:_SHOWN],
        captions=train_set.captions[:_SHOWN],
        reconstruction=reconstruction,
        latents=z0.float().cpu(),
        noising=noising(pipe, shown, z0, sampling["seed"]),
        curves={name: (range(1, len(v) + 1), v) for name, v in losses.items()},
        denoising=denoising(pipe, sampling),
        samples=samples[:_SAMPLES],
        prompts=(sampling["prompt"] or [])[:_SAMPLES],
        command=command,
        versions={
            "ldm_edu": ldm_edu.__version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
    )
    write_report(path, report)


def reconstruct(
    pipe: LatentDiffusion, train_set: ImageDataset, test_set: ImageDataset
) -> tuple[Reconstruction, float]:
    """Up to 1,000 test images through the autoencoder, and through PCA of the same size."""
    f, c = pipe.autoencoder.config.factor, pipe.autoencoder.config.latent_channels
    some = torch.arange(0, len(train_set.images), max(1, len(train_set.images) // 2000))
    basis, mean, _ = patch_pca(image_batch(train_set.images, some), f, c)
    ours, linear, shown = [], [], []
    for index in torch.arange(min(_TEST_IMAGES, len(test_set.images))).split(100):
        x = image_batch(test_set.images, index)
        x_hat = pipe.decode(pipe.encode(x))
        ours.append(psnr(x, x_hat))
        linear.append(psnr(x, pca_reconstruct(x, f, basis, mean).clamp(-1, 1)))
        shown = shown or [to_uint8(x[:_SHOWN]), to_uint8(x_hat[:_SHOWN])]
    values, pca_psnr = torch.cat(ours), torch.cat(linear).mean().item()
    first = values[:_SHOWN].tolist()
    return Reconstruction(*shown, first, values.mean().item(), pca_psnr), pca_psnr


def noising(pipe: LatentDiffusion, x0: Tensor, z0: Tensor, seed: int) -> Noising:
    """The same images at rising t: noise on the pixels, and noise on the latent."""
    schedule = pipe.schedule
    levels = [round(schedule.T * i / (_FRAMES - 1)) for i in range(_FRAMES)]
    eps_x, eps_z = (noise_of(len(x), seed, x.shape[1:]).to(x) for x in (x0, z0))
    x = torch.stack([to_uint8(q_sample(schedule, x0, t, eps_x)) for t in levels])
    z = torch.stack([q_sample(schedule, z0, t, eps_z) for t in levels])
    alpha_bar = schedule.alpha_bar[levels].tolist()
    return Noising(levels, alpha_bar, x, _decoded(pipe, z), _as_colours(z))


def denoising(pipe: LatentDiffusion, sampling: dict[str, Any]) -> Denoising:
    """The film of the first samples: z_t and the clean latent predicted from it, decoded."""
    prompts = sampling["prompt"] and sampling["prompt"][:_SHOWN]
    sampling = {**sampling, "prompt": prompts}
    states: list[State] = list(pipe.denoise(_SHOWN, **sampling))
    states = [states[i] for i in pick(len(states), _FRAMES)]
    z_t = torch.stack([s.z_t for s in states])
    z0_hat = torch.stack([s.z0_hat for s in states])
    levels = [s.t for s in states]
    return Denoising(levels, _decoded(pipe, z_t), _decoded(pipe, z0_hat), _as_colours(z_t))


def judged(samples: Tensor) -> str:
    """What the judge of `shapes` says of samples, uint8 (N, 3, 32, 32)."""
    clean = sum(verdict.accepted for verdict in judge(samples))
    return f"accepts {clean / len(samples):.0%} of {len(samples)} samples"


def _length(stage: str, losses: dict[str, list[float]], rates: dict[str, float]) -> str:
    return f"{len(losses[stage]):,} steps, {rates[stage]:.0f} images/s"


def _decoded(pipe: LatentDiffusion, z: Tensor) -> Tensor:
    return torch.stack([to_uint8(pipe.decode(frame)) for frame in z])


def _as_colours(z: Tensor) -> Tensor:
    rgb = latent_to_rgb(z.flatten(0, 1).float().cpu())  # one palette for the whole film
    return rgb.unflatten(0, z.shape[:2])
