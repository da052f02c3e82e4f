"""A small residual network that says what a picture shows: the judge of prompts.

He et al. 2015 (arXiv 1512.03385), few and wide layers for a CPU: pixels are folded into
channels at the door, as in the autoencoder. It sees real pictures only, never a sample.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_edu import checkpoint
from ldm_edu.errors import InputError
from ldm_edu.images import from_uint8, require_uint8

_FORMAT = "ldm_edu.Classifier"
_BATCH = 250  # images at once


@dataclass(frozen=True)
class ClassifierConfig:
    """What is told apart, and by how much network. Raises InputError for names that repeat."""

    names: tuple[str, ...]  # one an output
    exclusive: bool  # each picture is exactly one of them; else any number
    channels: tuple[int, ...] = (64, 128, 192)  # each level has half the side of the last
    patch: int = 2  # p x p pixels become channels
    dropout: float = 0.1  # of the features

    def __post_init__(self):
        for name in ("names", "channels"):  # JSON has only lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"names must be some, each once, found {self.names}")

    def to_dict(self) -> dict:
        return asdict(self)


class Classifier(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> logits (B, K), one for each of `config.names`.

    H and W are multiples of patch * 2^(levels - 1).
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        before, levels = 3 * config.patch**2, []
        for i, channels in enumerate(config.channels):
            door = _conv(before, channels, stride=1 if i == 0 else 2)
            levels.append(nn.Sequential(door, _Residual(channels)))
            before = channels
        self.levels = nn.Sequential(*levels)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(before, len(config.names))

    def features(self, x: Tensor) -> Tensor:
        """What the last layer looks at, averaged over positions: (B, 3, H, W) -> (B, D)."""
        return self.levels(F.pixel_unshuffle(x, self.config.patch)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(x)))

    @torch.no_grad()
    def decide(self, images: Tensor) -> Tensor:
        """What uint8 images (N, 3, H, W) show: bool (N, K).

        Where names are exclusive, one True a row, else one for each logit above 0. Raises
        InputError for other images.
        """
        require_uint8(images, "images", "N 3 H W")
        logits = torch.cat([self(from_uint8(batch)) for batch in images.split(_BATCH)])
        if self.config.exclusive:
            return F.one_hot(logits.argmax(1), logits.shape[1]).bool()
        return logits > 0

    def save(self, folder: str | Path, **notes) -> None:
        """Write a checkpoint folder in half precision; `notes` are kept in its config.json."""
        config = {"format": _FORMAT, "classifier": self.config.to_dict(), "notes": notes}
        weights = checkpoint.halved({"classifier": self.state_dict()})
        checkpoint.save(folder, config, weights)

    @classmethod
    def load(cls, folder: str | Path) -> "Classifier":
        """Read a checkpoint folder, verified. Raises CheckpointError."""
        with checkpoint.opened(folder, _FORMAT) as (config, tensors):
            model = cls(ClassifierConfig(**config["classifier"]))
            checkpoint.load_into(model, tensors["classifier"], "classifier")
        return model.eval().to(memory_format=torch.channels_last)


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.layers(h)


def _conv(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
