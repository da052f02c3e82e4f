"""Tensors of a `.safetensors` file, read one at a time: a large model is held only once.

The file is read, not mapped into memory: mapped weights would occupy the file's pages besides
those of the model, and crash Python when somebody writes to the file.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldm_edu.errors import CheckpointError
from ldm_edu.manifest import PICKLES

_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class StoredTensor(NamedTuple):
    """Where a tensor lies in a file."""

    path: Path
    name: str
    kind: str  # as safetensors names types: F32, I64, ...
    shape: tuple[int, ...]
    start: int  # of its bytes in the file

    def read(self) -> Tensor:
        """Its values, on the CPU. Raises CheckpointError for anything but floats."""
        if self.kind not in _FLOATS:
            raise CheckpointError(
                f"{self.path}: {self.name} is stored as {self.kind}; "
                f"supported: {', '.join(_FLOATS)}"
            )
        tensor = torch.empty(self.shape, dtype=_FLOATS[self.kind])
        values = memoryview(tensor.view(-1).view(torch.uint8).numpy())
        try:
            with open(self.path, "rb") as handle:
                handle.seek(self.start)
                if handle.readinto(values) != len(values):
                    raise CheckpointError(f"{self.path} became shorter while it was read")
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from error
        return tensor


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """What a `.safetensors` file holds, by name; no values are read.

    Raises CheckpointError for a pickle, which is not opened, and for a file that is missing,
    truncated or malformed.
    """
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt"):  # checks that every byte has its place
            pass
        with open(path, "rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} is no whole safetensors file ({reason}): download it again"
        ) from None
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            path,
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            8 + size + entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }


def refuse_pickle(path: Path) -> None:
    """Raises CheckpointError for a file that could run code when opened."""
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, and pickles can run code when opened; supported: "
            ".safetensors, in which nearly every model is published too"
        )
