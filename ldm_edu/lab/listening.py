"""Does a denoiser listen to its caption? Asked while it learns, in notebook 10."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ldm_edu.diffusion import diffusion_loss
from ldm_edu.lab.figures import BLUE, GREEN, ORANGE
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.seeds import noise_of
from ldm_edu.text import WordTokenizer

LEVEL = 900  # t, at which the picture says little and the caption much
TOLD = {"the right caption": BLUE, "no caption": ORANGE, "another's caption": GREEN}


@torch.no_grad()
def told_losses(
    model: Mapping[str, nn.Module],
    tokenizer: WordTokenizer,
    schedule: NoiseSchedule,
    z0: Tensor,
    captions: Sequence[str],
    t: int = LEVEL,
) -> dict[str, float]:
    """The mean loss of v at level t when the model is told each of TOLD.

    model: {"unet", "text_encoder"}. z0: latents (N, C, h, w) of pictures with these N captions;
    another's caption is that of the next picture. The noise is the same at every call.
    """
    ids = tokenizer(captions).to(z0.device)
    levels = torch.full((len(z0),), t, device=z0.device)
    eps = noise_of(len(z0), 0, z0.shape[1:]).to(z0)
    found = {}
    for told, said in zip(TOLD, (ids, torch.zeros_like(ids), ids.roll(-1, 0)), strict=True):
        context = model["text_encoder"](said)
        losses = diffusion_loss(model["unet"], schedule, z0, levels, eps, context)
        found[told] = losses.mean().item()
    return found


def draw_listening(axis: Axes, at: Sequence[int], measured: Sequence[Mapping]) -> None:
    """Draw what `told_losses` said at the steps `at` of a training."""
    for told, colour in TOLD.items():
        axis.plot(at, [each[told] for each in measured], "o-", color=colour, label=told)
    axis.set(xlabel="training step", ylabel=f"loss at t = {LEVEL}", ylim=(0, None))
    axis.legend(title="told", loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
