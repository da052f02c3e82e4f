"""Trained models by name: those that ship with ldm_edu, or any checkpoint folder."""

import os
from pathlib import Path

from ldm_edu import checkpoint
from ldm_edu.data import NAMES
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.pipeline import LatentDiffusion

_PACKAGE = Path(__file__).resolve().parent


def weights_folder() -> Path:
    """Where the shipped weights lie: ldm_edu/weights if it was installed as a wheel, else
    data/weights of the repository."""
    installed = _PACKAGE / "weights"  # setup.py puts them there
    return installed if installed.is_dir() else _PACKAGE.parent / "data" / "weights"


def load_pretrained(name: str | os.PathLike[str], device: str = "auto") -> LatentDiffusion:
    """A trained model: "shapes", "cifar10", "celeba64", or one from a checkpoint folder.

    A shipped name comes before a folder of that name: write "./shapes" for the folder.
    Weights are float32 whatever they are stored as. device: as of `pick_device`.
    Raises CheckpointError if there is no such model, naming those that there are, or if it is
    damaged; InputError for a device that is not available, or what is no name at all.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a model is a name or a folder, found {name!r}")
    shipped = [known for known in NAMES if checkpoint.exists(weights_folder() / known)]
    folder = weights_folder() / name if name in NAMES else Path(name)
    if not checkpoint.exists(folder):
        raise CheckpointError(
            f"no checkpoint at {folder}; models that ship with this copy of ldm_edu: "
            f"{', '.join(shipped) or 'none'}; others are trained by ldm-edu quickstart"
        )
    return LatentDiffusion.load(folder, device)
