"""Training steps per second, side by side with diffusers at the same number of operations.

    pip install -e '.[benchmarks]'
    python benchmarks/train_step.py            # on a quiet machine, about 3 minutes

Both models go through one loop (`ldm_edu.training.train`: forward, loss, backward, clipping,
fused AdamW, EMA), in turns: A B A B ... The ratio is taken pair by pair, so that a machine
whose speed drifts does not decide. Operations are counted, forward and backward, by PyTorch.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldm_edu import Autoencoder, NoiseSchedule, UNet
from ldm_edu.diffusion import diffusion_loss
from ldm_edu.losses import autoencoder_loss
from ldm_edu.recipes import QUICKSTART
from ldm_edu.training import TrainConfig, TrainState, train

SCHEDULE = NoiseSchedule()


class Contender(NamedTuple):
    name: str
    model: nn.Module
    loss_fn: Callable[[int], Tensor]  # of one batch


def denoisers(batch: int) -> list[Contender]:
    """The U-Net of the CIFAR-10 recipe, on 8x8 latents, and diffusers' unconditional one."""
    recipe = replace(QUICKSTART["cifar10"].unet, context_dim=None)  # theirs reads no captions
    ours = UNet(recipe).to(memory_format=torch.channels_last)
    theirs = UNet2DModel(
        sample_size=8,
        in_channels=recipe.in_channels,
        out_channels=recipe.out_channels,
        block_out_channels=(72, 144),  # wide enough for as many operations
        layers_per_block=recipe.blocks,
        norm_num_groups=8,
        attention_head_dim=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    z0 = torch.randn(batch, recipe.in_channels, 8, 8)

    def loss(model: Callable, z0: Tensor) -> Tensor:
        t = torch.randint(1, SCHEDULE.T + 1, (len(z0),))
        return diffusion_loss(model, SCHEDULE, z0, t, torch.randn_like(z0)).mean()

    z0_last = z0.contiguous(memory_format=torch.channels_last)
    return [
        Contender("ldm_edu UNet", ours, lambda step: loss(ours, z0_last)),
        Contender(
            "diffusers UNet2DModel",
            theirs,
            lambda step: loss(lambda z, t, context: theirs(z, t).sample, z0),
        ),
    ]


def autoencoders(batch: int) -> list[Contender]:
    """The autoencoder of the CIFAR-10 recipe, 32x32 -> 8x8, and diffusers' of the same f."""
    recipe = QUICKSTART["cifar10"].autoencoder
    ours = Autoencoder(recipe).to(memory_format=torch.channels_last)
    theirs = AutoencoderKL(
        latent_channels=recipe.latent_channels,
        block_out_channels=(24, 56, 112),  # no patches: one level more for the same f
        layers_per_block=recipe.blocks,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    x = torch.rand(batch, 3, 32, 32) * 2 - 1
    x_last = x.contiguous(memory_format=torch.channels_last)

    def our_loss(step: int) -> Tensor:
        x_hat, posterior = ours(x_last)
        return autoencoder_loss(x_last, x_hat, posterior.kl())

    def their_loss(step: int) -> Tensor:
        posterior = theirs.encode(x).latent_dist
        return autoencoder_loss(x, theirs.decode(posterior.sample()).sample, posterior.kl())

    return [
        Contender("ldm_edu Autoencoder", ours, our_loss),
        Contender("diffusers AutoencoderKL", theirs, their_loss),
    ]


def operations(contender: Contender) -> float:
    """GFLOP of one forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        contender.loss_fn(0).backward()
    return counter.get_total_flops() / 1e9


def gemm_peak(n: int = 2048, runs: int = 20) -> float:
    """GFLOP/s of a large float32 matrix product: what this machine can do at best."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    best = min(_seconds(lambda: a @ b) for _ in range(runs))
    return 2 * n**3 / best / 1e9


def steps(contender: Contender) -> Iterator:
    return train(TrainState(contender.model, TrainConfig(steps=10**6)), contender.loss_fn)


def compare(pair: list[Contender], batch: int, rounds: int, warm: int = 3) -> None:
    """Print a row a contender and the ratio of their rates."""
    work = [operations(c) for c in pair]
    loops = [steps(c) for c in pair]
    for loop in loops * warm:
        next(loop)
    times = [[_seconds(lambda loop=loop: next(loop)) for loop in loops] for _ in range(rounds)]
    peak = gemm_peak()
    for i, contender in enumerate(pair):
        seconds = statistics.median(t[i] for t in times)
        parameters = sum(p.numel() for p in contender.model.parameters()) / 1e6
        print(
            f"{contender.name:24} {parameters:5.2f} M  {work[i] / batch:6.3f} GFLOP/image "
            f"{batch / seconds:6.0f} images/s {work[i] / seconds:5.0f} GFLOP/s "
            f"= {work[i] / seconds / peak:.2f} of the GEMM peak {peak:.0f}"
        )
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    print(
        f"  operations {work[0] / work[1]:.3f} : 1, rate {ratio:.2f} : 1, "
        f"rate per operation {ratio * work[0] / work[1]:.2f} : 1\n"
    )


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} threads, batches of {options.batch}")
    for make in (denoisers, autoencoders):
        compare(make(options.batch), options.batch, options.rounds)


if __name__ == "__main__":
    main()
