"""The recorded commands of the shipped models: one stage of a recipe, trained in a folder.

    ldm-edu train autoencoder --recipe celeba64 --out runs/celeba64-trained
    ldm-edu train diffusion --recipe celeba64 --out runs/celeba64-trained

The folder keeps both stages' states, the latents, a log, and at last `model/`.
"""

from dataclasses import dataclass
from pathlib import Path

from ldm_edu import checkpoint, data
from ldm_edu.autoencoder import Autoencoder
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.pipeline import LatentDiffusion, pick_device
from ldm_edu.recipes import TRAINED
from ldm_edu.run_files import Log, finished, read_plan, steps_of, write_plan
from ldm_edu.seeds import check_seed
from ldm_edu.stages import (
    AUTOENCODER,
    DIFFUSION,
    encode_once,
    join,
    train_autoencoder,
    train_denoiser,
)

STAGES = (AUTOENCODER, DIFFUSION)


@dataclass(frozen=True)
class Training:
    """What the two stages of a model share; stored in their folder as run.json."""

    recipe: str
    seed: int = 0

    def __post_init__(self):
        if self.recipe not in TRAINED:
            raise InputError(
                f"recipe {self.recipe!r} is unknown; use one of {', '.join(TRAINED)}"
            )
        check_seed(self.seed)

    def command(self, stage: str) -> str:
        """The command line that trains one stage."""
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"ldm-edu train {stage} --recipe {self.recipe}{seed}"


def train_stage(
    stage: str,
    training: Training,
    out: Path,
    *,
    root: str | None = None,
    steps: int | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Autoencoder | LatentDiffusion:
    """Train one stage in the folder `out`; the second needs the first there, finished.

    steps: instead of the recipe's. resume: go on with a stage that was stopped, which keeps its
    number of steps. Returns what is ready then: the autoencoder, or the whole model, which is
    also saved in out/model. Raises Stopped after Ctrl-C, with everything saved, and an
    LdmEduError for bad input.
    """
    if steps is not None and steps < 2:
        raise InputError(f"steps must be at least 2, found {steps}")
    recipe, device, seed = TRAINED[training.recipe], pick_device(device), training.seed
    _check_folder(stage, training, out, resume)
    train_set = data.load(recipe.data, "train", root)
    write_plan(out, training)
    pairs = zip(STAGES, recipe.steps, strict=True)
    lengths = {s: steps_of(out / s) or own for s, own in pairs}
    lengths[stage] = steps or lengths[stage]
    log = Log(out / "log.jsonl")
    try:
        length = lengths[AUTOENCODER]
        autoencoder = train_autoencoder(  # where it is finished, it is read back
            recipe, train_set, out / AUTOENCODER, log, length, seed, device
        )
        if stage == AUTOENCODER:
            return autoencoder
        latents = encode_once(autoencoder, train_set, recipe, out / "latents")
        captions, length = train_set.captions, lengths[DIFFUSION]
        denoiser = train_denoiser(
            recipe, latents, captions, out / DIFFUSION, log, length, seed, device
        )
    finally:
        log.close()
    pipe = join(recipe, autoencoder, *denoiser, train_set.images.shape[-1])
    pipe.save(out / "model", data=recipe.data, commands=[training.command(s) for s in STAGES])
    return pipe


def _check_folder(stage: str, training: Training, out: Path, resume: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        if resume:
            raise CheckpointError(f"{out} holds no run to resume")
        if stage == DIFFUSION:
            raise CheckpointError(
                f"{out} holds no autoencoder: run first `{training.command(AUTOENCODER)}` "
                f"with --out {out}"
            )
        return
    found = read_plan(out, Training)
    if found is None:
        raise InputError(f"{out} exists and holds no training of a recipe")
    if found != training:
        raise InputError(f"{out} holds {found}, not {training}: name another folder")
    if checkpoint.exists(out / stage) and not resume:
        raise InputError(f"{out / stage} already exists: add --resume to go on with it")
    if stage == DIFFUSION and not finished(out / AUTOENCODER):
        raise CheckpointError(
            f"the autoencoder in {out} is not finished: go on with "
            f"`{training.command(AUTOENCODER)} --resume --out {out}`"
        )
