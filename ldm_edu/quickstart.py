"""The whole story in one call: images -> autoencoder -> latents -> denoiser -> new images."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from ldm_edu import checkpoint, data
from ldm_edu.data.shapes import one_object
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.images import image_grid, save_png, to_uint8
from ldm_edu.measures import sample_with_bar
from ldm_edu.pipeline import LatentDiffusion, pick_device
from ldm_edu.quickstart_report import write_quickstart_report
from ldm_edu.recipes import QUICKSTART
from ldm_edu.run_files import Log, read_plan, write_plan
from ldm_edu.seeds import check_seed
from ldm_edu.stages import (
    AUTOENCODER,
    DIFFUSION,
    encode_once,
    join,
    train_autoencoder,
    train_denoiser,
)

# with fresh noise at each step a young denoiser mends its own mistakes; DDIM keeps them
SAMPLING = {"sampler": "ddpm", "steps": 200}
_SHOWN, _JUDGED = 64, 256  # samples in the picture; samples of shapes that the judge reads


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
        if self.data not in QUICKSTART:
            raise InputError(
                f"data set {self.data!r} is unknown; use one of {', '.join(QUICKSTART)}"
            )
        if not 0 < self.minutes < float("inf"):
            raise InputError(f"minutes must be more than 0, found {self.minutes:g}")
        if self.steps is not None:
            object.__setattr__(self, "steps", tuple(self.steps))  # JSON has only lists
            if len(self.steps) != 2 or min(self.steps) < 2:
                raise InputError(f"steps must be two numbers of at least 2, found {self.steps}")
        check_seed(self.seed)

    @property
    def command(self) -> str:
        """The command line that makes this run."""
        root = f" --root {self.root}" if self.root else ""
        seed = f" --seed {self.seed}" if self.seed else ""
        long = f"--minutes {self.minutes:g}"
        if self.steps is not None:
            long = f"--steps {self.steps[0]} {self.steps[1]}"
        return f"ldm-edu quickstart --data {self.data}{root} {long}{seed}"

    def lengths(self, share: float) -> tuple[int | timedelta, int | timedelta]:
        """How long to train each stage, if the first has `share` of the minutes."""
        if self.steps is not None:
            return self.steps
        first = timedelta(minutes=self.minutes * share)
        return first, timedelta(minutes=self.minutes) - first


def saved_plan(out: Path) -> Plan:
    """The plan of the run in `out`. Raises CheckpointError if there is none."""
    plan = read_plan(out, Plan)
    if plan is None:
        raise CheckpointError(f"{out} holds no run to resume")
    return plan


def quickstart(plan: Plan, out: Path, resume: bool = False) -> LatentDiffusion:
    """Train both stages of `plan` in the folder `out` and report; `resume` goes on with it.

    Leaves log.jsonl, the stages' states, `model/` (a checkpoint for `LatentDiffusion.load`),
    samples.png and report.html. Raises Stopped after Ctrl-C: call again with `resume` and the
    same plan. Raises an LdmEduError for bad input, before anything is written.
    """
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} already exists: add --resume to go on with it, or name another"
        )
    if resume:
        _check_same(saved_plan(out), plan, out)
    recipe, device = QUICKSTART[plan.data], pick_device(plan.device)
    train_set, test_set = (data.load(plan.data, split, plan.root) for split in data.SPLITS)
    if recipe.one_object:
        train_set, test_set = one_object(train_set), one_object(test_set)
    if not resume:
        write_plan(out, plan)
    log = Log(out / "log.jsonl")
    lengths = plan.lengths(recipe.autoencoder_share)
    try:
        autoencoder = train_autoencoder(
            recipe, train_set, out / AUTOENCODER, log, lengths[0], plan.seed, device
        )
        latents = encode_once(autoencoder, train_set, recipe, out / "latents")
        captions = train_set.captions
        denoiser = train_denoiser(
            recipe, latents, captions, out / DIFFUSION, log, lengths[1], plan.seed, device
        )
    finally:
        log.close()
    size = train_set.images.shape[-1]
    pipe = join(recipe, autoencoder, *denoiser, size)
    pipe.save(out / "model", command=plan.command, data=plan.data)
    count = _JUDGED if plan.data == "shapes" else _SHOWN
    captions = test_set.captions
    prompts = (
        None if pipe.tokenizer is None else [captions[i % len(captions)] for i in range(count)]
    )
    sampling = {"prompt": prompts, "seed": plan.seed, **SAMPLING}
    samples = to_uint8(sample_with_bar(pipe, count, **sampling))
    grid = image_grid(samples[:_SHOWN], columns=8, scale=128 // size)
    save_png(out / "samples.png", grid)
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


def _check_same(found: Plan, asked: Plan, out: Path) -> None:
    for name, own in asdict(found).items():
        if own != (value := getattr(asked, name)):
            raise InputError(
                f"the run in {out} has {name} {own}, not {value}: leave it out, or name "
                "another folder"
            )
