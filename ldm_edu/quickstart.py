"""The whole story in one call: images -> autoencoder -> latents -> denoiser -> new images."""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ldm_edu import checkpoint, data
from ldm_edu.autoencoder import Autoencoder
from ldm_edu.data import ImageDataset
from ldm_edu.diffusion import diffusion_loss
from ldm_edu.errors import CheckpointError, InputError, StorageError
from ldm_edu.images import image_grid, save_png, to_uint8, write_atomic
from ldm_edu.latents import LatentSet, encode_dataset, image_batch, measure_scale, rescale
from ldm_edu.losses import autoencoder_loss
from ldm_edu.pipeline import LatentDiffusion, pick_device
from ldm_edu.quickstart_report import write_quickstart_report
from ldm_edu.recipes import RECIPES, Recipe
from ldm_edu.runs import Log, run_stage
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.training import TrainConfig, batch_index, seeded
from ldm_edu.unet import UNet

AUTOENCODER, DIFFUSION = "autoencoder", "diffusion"  # the two stages, as the log names them
# with fresh noise at each step a young denoiser mends its own mistakes; DDIM keeps them
SAMPLING = {"sampler": "ddpm", "steps": 250}
_PCA_IMAGES = 2000


@dataclass(frozen=True)
class Plan:
    """What a run was asked for; stored in its folder, so that it can be resumed without it."""

    data: str = "shapes"
    root: str | None = None
    minutes: float = 5.0  # of training, both stages together
    steps: tuple[int, int] | None = None  # of each stage, instead of minutes
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        if self.data not in RECIPES:
            raise InputError(
                f"data set {self.data!r} is unknown; use one of {', '.join(RECIPES)}"
            )
        if not 0 < self.minutes < float("inf"):
            raise InputError(f"minutes must be more than 0, found {self.minutes:g}")
        if self.steps is not None:
            object.__setattr__(self, "steps", tuple(self.steps))  # JSON has only lists
            if len(self.steps) != 2 or min(self.steps) < 2:
                raise InputError(f"steps must be two numbers of at least 2, found {self.steps}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, found {self.seed}")

    @property
    def command(self) -> str:
        """The command line that makes this run."""
        root = f" --root {self.root}" if self.root else ""
        seed = f" --seed {self.seed}" if self.seed else ""
        long = f"--minutes {self.minutes:g}"
        if self.steps is not None:
            long = f"--steps {self.steps[0]} {self.steps[1]}"
        return f"ldm-edu quickstart --data {self.data}{root} {long}{seed}"

    def length(self, stage: int, share: float) -> int | timedelta:
        """How long to train stage 0 or 1, which has `share` of the minutes."""
        if self.steps is not None:
            return self.steps[stage]
        return timedelta(minutes=self.minutes * share)


def saved_plan(out: Path) -> Plan:
    """The plan of the run in `out`. Raises CheckpointError if there is none."""
    try:
        return Plan(**json.loads((out / "run.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{out} holds no run to resume: {error}") from None


def quickstart(plan: Plan, out: Path, resume: bool = False) -> LatentDiffusion:
    """Train both stages of `plan` in the folder `out` and report; `resume` goes on with it.

    Leaves log.jsonl, the stages' states, `model/` (a checkpoint for `LatentDiffusion.load`),
    samples.png and report.html. Raises Stopped after Ctrl-C: call again with `resume`. Raises
    an LdmEduError for bad input, before anything is written.
    """
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} already exists: add --resume to go on with it, or name another"
        )
    recipe, device = RECIPES[plan.data], pick_device(plan.device)
    train_set = data.load(plan.data, "train", plan.root)
    test_set = data.load(plan.data, "test", plan.root)
    if not resume:
        _write_plan(plan, out)
    log = Log(out / "log.jsonl")
    try:
        autoencoder = train_autoencoder(plan, recipe, train_set, out, log, device)
        latents = encode_once(autoencoder, train_set, recipe.flip, out / "latents")
        autoencoder.set_latent_scale(*measure_scale(latents, per_channel=recipe.whiten == 1))
        unet = train_denoiser(plan, recipe, autoencoder, latents, out, log, device)
    finally:
        log.close()
    size = train_set.images.shape[-1]
    pipe = LatentDiffusion(autoencoder, unet, NoiseSchedule(), "v", size)
    pipe.save(out / "model", command=plan.command, data=plan.data)
    sampling = {"seed": plan.seed, **SAMPLING}
    samples = to_uint8(pipe.sample(64, **sampling))
    save_png(out / "samples.png", image_grid(samples, columns=8, scale=128 // size))
    seconds = {s: checkpoint.read_config(out / s)["seconds"] for s in (AUTOENCODER, DIFFUSION)}
    rates = {s: len(log.losses[s]) * recipe.batch_size / seconds[s] for s in seconds}
    write_quickstart_report(
        out / "report.html",
        pipe,
        train_set,
        test_set,
        samples,
        sampling,
        log.losses,
        rates,
        plan.command,
    )
    return pipe


def _write_plan(plan: Plan, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {out}: {error.strerror}") from None
    write_atomic(out / "run.json", (json.dumps(asdict(plan), indent=2) + "\n").encode())


def train_autoencoder(
    plan: Plan, recipe: Recipe, images: ImageDataset, out: Path, log: Log, device: torch.device
) -> Autoencoder:
    """Stage one: L1 + KL on the images, from patch-PCA on; returns the averaged weights."""
    with seeded(plan.seed, 1):
        model = Autoencoder(recipe.autoencoder)
    count = len(images.images)
    some = torch.arange(0, count, max(1, count // _PCA_IMAGES))
    model.start_as_pca(image_batch(images.images, some), recipe.whiten)
    model = _placed(model, device)

    def loss_fn(model: nn.Module, step: int) -> Tensor:
        index = batch_index(count * (1 + recipe.flip), recipe.batch_size, plan.seed, step)
        x = _placed(image_batch(images.images, index), device)
        posterior = model.encode(x)
        z = posterior.sample()
        # a denoiser's latents are never quite right: the decoder learns to bear it
        sigma = recipe.latent_noise * torch.rand(len(z), 1, 1, 1).to(z)
        z = z + sigma * z.std((0, 2, 3), keepdim=True).detach() * torch.randn_like(z)
        return autoencoder_loss(x, model.decode(z), posterior.kl(), recipe.kl_weight)

    config = TrainConfig(steps=1, lr=recipe.autoencoder_lr, seed=plan.seed)
    length = plan.length(0, recipe.autoencoder_share)
    return run_stage(out / AUTOENCODER, AUTOENCODER, model, loss_fn, config, length, log).ema


def encode_once(
    autoencoder: Autoencoder, images: ImageDataset, flip: bool, folder: Path
) -> LatentSet:
    """The data set's latents, unscaled, from `folder` if they were encoded before."""
    if checkpoint.exists(folder):
        return LatentSet(**checkpoint.load(folder)[1]["latents"])
    total = len(images.images) * (1 + flip)
    with tqdm(total=total, desc="encoding", unit="image") as bar:
        for done, latents in encode_dataset(autoencoder, images.images, flip):  # noqa: B007
            bar.update(done - bar.n)
    checkpoint.save(folder, {"data": images.name}, {"latents": latents._asdict()})
    return latents


def train_denoiser(
    plan: Plan,
    recipe: Recipe,
    autoencoder: Autoencoder,
    latents: LatentSet,
    out: Path,
    log: Log,
    device: torch.device,
) -> UNet:
    """Stage two: v-prediction on scaled latents, cosine schedule; returns averaged weights."""
    latents = rescale(latents, autoencoder.latent_shift, 1 / autoencoder.latent_scale)
    schedule = NoiseSchedule()
    with seeded(plan.seed, 2):
        model = _placed(UNet(recipe.unet), device)

    def loss_fn(model: nn.Module, step: int) -> Tensor:
        index = batch_index(len(latents.mean), recipe.batch_size, plan.seed, step)
        shape = (len(index), *latents.mean.shape[1:])
        z0 = _placed(latents.sample(index, torch.randn(shape)), device)
        t = torch.randint(1, schedule.T + 1, (len(z0),)).to(device)
        eps = torch.randn(shape).to(z0)
        return diffusion_loss(model, schedule, z0, t, eps, None, "v", recipe.min_snr).mean()

    config = TrainConfig(steps=1, lr=recipe.unet_lr, ema=0.9995, seed=plan.seed)
    length = plan.length(1, 1 - recipe.autoencoder_share)
    return run_stage(out / DIFFUSION, DIFFUSION, model, loss_fn, config, length, log).ema


def _placed(thing, device: torch.device):
    # channels last is what CPU convolutions like best
    return thing.to(device, memory_format=torch.channels_last)
