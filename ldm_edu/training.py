"""The training loop as a generator: the caller drives it, watches it, and stops it anywhere.

    state = TrainState(model, TrainConfig(steps=10_000))
    for progress in train(state, loss_fn):
        ...                                    # print, plot, save, break

Batches and noise are functions of (seed, step) alone: before each step the random generators
are seeded by the pair, so a run that was stopped and resumed equals one that never was.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.seeds import check_seed, mix, seeded


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, how smooth. Raises InputError for numbers that cannot be."""

    steps: int
    lr: float = 1e-3  # peak, after warm-up
    warmup: int = 100  # steps of linear rise
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # decay of the averaged weights, once warmed up
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))  # JSON has only lists
        check_seed(self.seed)
        fine = self.steps >= 1 and self.lr > 0 and self.warmup >= 0
        if not fine or not 0 <= self.ema < 1:
            raise InputError(
                "need steps >= 1, lr > 0, warmup >= 0, 0 <= ema < 1; found"
                f" steps={self.steps}, lr={self.lr}, warmup={self.warmup}, ema={self.ema}"
            )

    def to_dict(self) -> dict:
        return asdict(self)


class Progress(NamedTuple):
    """One optimizer step, just done. `step` counts from 1; loss is the batch's, before it."""

    step: int
    loss: float
    lr: float
    grad_norm: float


class TrainState:
    """All that a run needs to go on: model, averaged model, optimizer, step.

    There is no random state to store: it is a function of (seed, step).
    """

    def __init__(self, model: nn.Module, config: TrainConfig):
        self.model, self.config, self.step = model, config, 0
        self.ema = copy.deepcopy(model).requires_grad_(False).eval()
        device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )

    def state_dict(self) -> tuple[dict, dict[str, dict[str, Tensor]]]:
        """(JSON-able config, groups of tensors), for `ldm_edu.checkpoint.save`."""
        names = {p: name for name, p in self.model.named_parameters()}
        moments = {
            f"{names[p]}|{key}": value
            for p, entry in self.optimizer.state.items()
            for key, value in entry.items()
        }
        tensors = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": moments,
        }
        return {"step": self.step, "train": self.config.to_dict()}, tensors

    def load_state_dict(self, config: dict, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Go on from where `state_dict` was.

        Raises CheckpointError for another run's state: nothing is changed then.
        """
        found, own = _plain(config.get("train", {})), _plain(self.config.to_dict())
        if found != own:
            unlike = [k for k in found | own if found.get(k) != own.get(k)]
            told = "; ".join(f"{k} {found.get(k)}, not {own.get(k)}" for k in unlike)
            raise CheckpointError(
                f"the saved run has {told}: go on with it as it was begun, or begin another"
            )
        try:
            step, rehearsal = config["step"], copy.deepcopy(self.ema)
            rehearsal.load_state_dict(tensors["model"])
            rehearsal.load_state_dict(tensors["ema"])
            parameters, moments = dict(self.model.named_parameters()), {}
            for name, value in tensors["optimizer"].items():
                name, key = name.split("|")
                p = parameters[name]
                if key == "step":  # a number: on the CPU, but for fused GPU optimizers
                    value = value.to(p.device if p.is_cuda else "cpu").clone()
                else:  # in the parameter's memory layout, which the fused step relies on
                    value = torch.empty_like(p).copy_(value)
                moments.setdefault(p, {})[key] = value
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"the saved training state is another model's: {reason}"
            ) from None
        self.model.load_state_dict(tensors["model"])
        self.ema.load_state_dict(tensors["ema"])
        self.optimizer.state.clear()
        self.optimizer.state.update(moments)
        self.step = step


def train(state: TrainState, loss_fn: Callable[[int], Tensor]) -> Iterator[Progress]:
    """Optimise until `config.steps`, from wherever the state stands; yields after every step.

    loss_fn(step) -> scalar loss; it may draw from torch's global generators, which are seeded
    by (seed, step) for it and restored afterwards. Stopping the iteration at any yield leaves
    the state at a step boundary, ready to be saved.
    Raises InputError if the loss is no scalar, or it or its gradient is not finite: the step
    is then not taken.
    """
    c, parameters = state.config, list(state.model.parameters())
    while state.step < c.steps:
        step = state.step + 1
        lr = learning_rate(step, c)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.model.train()
        with seeded(c.seed, step):
            loss = loss_fn(step)
            if loss.numel() != 1:
                raise InputError(
                    f"the loss must be a scalar, found shape {tuple(loss.shape)}: take .mean()"
                )
            if not torch.isfinite(loss):
                raise InputError(
                    f"the loss at step {step} is {loss.item()}: lower the rate {lr:.2g}"
                )
            state.optimizer.zero_grad()
            loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(parameters, c.clip)
        if not torch.isfinite(grad_norm):  # one such step would spoil every weight
            raise InputError(
                f"the loss at step {step} is {loss.item():.3g}, but the norm of its gradient "
                f"is {grad_norm.item()}: look for a root or a division at 0, or lower the "
                f"rate {lr:.2g}"
            )
        state.optimizer.step()
        update_ema(state.ema, state.model, ema_decay(step, c.ema))
        state.step = step
        yield Progress(step, loss.item(), lr, grad_norm.item())


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up to `lr`, then half a cosine down to 0 just after the last step."""
    if step <= config.warmup:
        return config.lr * step / config.warmup
    part = (step - config.warmup) / (config.steps + 1 - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))


def ema_decay(step: int, longest: float) -> float:
    """Decay that averages over about a tenth of the run while it is young."""
    return min(longest, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * model, parameter by parameter; buffers are copied."""
    for average, p in zip(ema.parameters(), model.parameters(), strict=True):
        average.lerp_(p, 1 - decay)
    for average, b in zip(ema.buffers(), model.buffers(), strict=True):
        average.copy_(b)


def batch_index(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The images of step 1, 2, ...: (batch_size,) int64, each of `count` once an epoch.

    A pure function of its arguments. Epochs run on within a batch: none is cut short.
    """
    start = (step - 1) * batch_size
    places = torch.arange(start, start + batch_size)
    epochs = [
        _permutation(count, seed, e)
        for e in range(start // count, int(places[-1]) // count + 1)
    ]
    return torch.cat(epochs)[places - start // count * count]


def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(mix(seed, epoch, count))
    return torch.randperm(count, generator=generator)


def _plain(config: dict) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
