"""A published model by its name on the Hugging Face hub: what is needed of it, once."""

from collections.abc import Collection
from pathlib import Path

from ldm_edu.data.hub import reachable
from ldm_edu.errors import CheckpointError
from ldm_edu.stable_diffusion.folder import FOLDERS, INDEX, SCHEDULER, WEIGHTS, weight_files

CONFIGS = [INDEX, SCHEDULER, *(f"{folder}/config.json" for folder in FOLDERS.values())]
TOKENIZER = [
    "tokenizer/tokenizer.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
]


def download(name: str, half: bool) -> Path:
    """The folder of a model, downloaded with a progress bar unless it was before.

    half: take the weights of 16 bits where there are any; never both. Raises CheckpointError,
    within seconds if there is no network, saying what to get and where to put it.
    """
    import huggingface_hub

    if cached := _cached(name, half):
        return cached
    if not reachable():
        raise CheckpointError(
            f"cannot download {name}, the hub cannot be reached: {_by_hand(name)}"
        )
    try:
        wanted = choose(name, huggingface_hub.list_repo_files(name), half)
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except CheckpointError:
        raise
    except Exception as error:  # the hub's client raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot download {name} ({reason}): {_by_hand(name)}") from error


def choose(name: str, files: Collection[str], half: bool) -> list[str]:
    """The files to fetch: settings, vocabulary and one set of weights, neither EMA's double nor
    a pickle. Raises CheckpointError if a part has none."""
    wanted = [file for file in (*CONFIGS, *TOKENIZER) if file in files]
    for part, folder in FOLDERS.items():
        options = [f"{folder}/{WEIGHTS[part]}{ending}" for ending in weight_files(half)]
        found = [option for option in options if option in files]
        if not found:
            raise CheckpointError(
                f"{name} on the hub has no {options[0]}: supported are models in diffusers' "
                "layout, with safetensors"
            )
        wanted.append(found[0])
    return wanted


def _cached(name: str, half: bool) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        wanted = choose(name, files, half)
    except (LocalEntryNotFoundError, CheckpointError, ValueError, OSError):
        return None  # nothing yet, or only some of it
    return folder if set(CONFIGS) <= set(wanted) and set(TOKENIZER) & set(wanted) else None


def _by_hand(name: str) -> str:
    folders = ", ".join([*FOLDERS.values(), "tokenizer", "scheduler"])
    return (
        f"get {INDEX} and the folders {folders} from https://huggingface.co/{name} where there "
        "is a network, and load the folder you put them in"
    )
