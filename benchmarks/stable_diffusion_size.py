"""Stable Diffusion v1 at full size, of random weights: what loading and a step of it cost.

    python benchmarks/stable_diffusion_size.py              # 4.3 GB of disk, 9 of memory
    python benchmarks/stable_diffusion_size.py --small      # the same path in seconds

What weights cost does not depend on their values. Random ones are saved as a diffusers folder;
then a fresh process loads them and denoises one step at 512x512 with guidance, which is two
latents through the U-Net. Peaks are those of the process less what Python and PyTorch took
before loading. Linux only: they are read from /proc.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import ldm_edu
from ldm_edu import (
    Autoencoder,
    AutoencoderConfig,
    ClipTokenizer,
    LatentDiffusion,
    TextEncoder,
    TextEncoderConfig,
    UNet,
    UNetConfig,
)
from ldm_edu.bpe import START, STOP, byte_symbols
from ldm_edu.stable_diffusion.published import GRID, GUIDANCE, LATENT_SCALE, SCHEDULE

SMALL = UNetConfig(
    channels=(64, 128, 128),
    attention=(True, True, False),
    heads=8,
    context_dim=64,
    time_shift=-1,
)


def random_model(small: bool) -> LatentDiffusion:
    """The classes at their published sizes, freshly initialised; the vocabulary is bytes."""
    symbols = byte_symbols()
    symbols = [*symbols, *(symbol + "</w>" for symbol in symbols), START, STOP]
    tokenizer = ClipTokenizer({symbol: i for i, symbol in enumerate(symbols)}, merges=[])
    text = TextEncoderConfig.stable_diffusion_v1()
    autoencoder, unet, size = AutoencoderConfig(), UNetConfig.stable_diffusion_v1(), 512
    if small:
        text = TextEncoderConfig(len(symbols), 77, 64, 2, 1, None, True, "quick_gelu")
        autoencoder, unet, size = AutoencoderConfig(channels=(32, 64, 64, 64)), SMALL, 64
    model = Autoencoder(autoencoder)
    model.latent_scale.fill_(LATENT_SCALE)
    parts = model, UNet(unet), SCHEDULE, "eps", size, tokenizer, TextEncoder(text)
    return LatentDiffusion(*parts, guidance=GUIDANCE, grid=GRID)


def measure(folder: Path) -> dict[str, float]:
    """Load and step, in this process: seconds, and peaks in bytes."""
    threads = torch.get_num_threads()
    before, started = _peak(), time.perf_counter()
    pipe = ldm_edu.load_stable_diffusion(folder, device="cpu")
    loaded, load = time.perf_counter(), _peak()
    states = pipe.denoise(prompt="a photograph", steps=50, sampler="ddim")
    next(states)  # the first state is before the first step, but its z0_hat needs the model
    stepped, step = time.perf_counter(), _peak()
    modules = (pipe.unet, pipe.autoencoder, pipe.text_encoder)
    return {
        "threads": threads,
        "parameters": [sum(p.numel() for p in m.parameters()) for m in modules],
        "weights": sum(p.nbytes for m in modules for p in m.parameters()),
        "load_seconds": loaded - started,
        "step_seconds": stepped - loaded,
        "load_peak": load - before,
        "step_peak": step - before,
        "before": before,
    }


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a small model instead")
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, started = Path(scratch) / "model", time.perf_counter()
        ldm_edu.save_stable_diffusion(random_model(options.small), folder)
        print(f"made and saved in {time.perf_counter() - started:.1f} s")
        done = subprocess.run(
            [sys.executable, __file__, "--measure", folder], capture_output=True, text=True
        )
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    weights = found["weights"]
    unet, autoencoder, text = found["parameters"]
    print(f"U-Net {unet:,}, autoencoder {autoencoder:,}, text encoder {text:,} parameters")
    print(f"weights      {weights / 1e6:9.1f} MB, {found['threads']} threads")
    for name in ("load", "step"):
        peak = found[f"{name}_peak"]
        print(
            f"{name}         {found[f'{name}_seconds']:9.2f} s, "
            f"peak {peak / 1e6:9.1f} MB = {peak / weights:.2f} times the weights"
        )
    print(f"before loading, Python and PyTorch take {found['before'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
