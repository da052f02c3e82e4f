"""Feature maps: what each layer of a network makes of a picture, over the noise level t."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.film import MAT, Dial, Film
from ldm_edu.images import channel_images, image_grid, to_uint8
from ldm_edu.schedule import NoiseSchedule

SIDE = 192  # pixels of a panel
COLUMNS, ROWS = 4, 3  # feature maps shown


@torch.no_grad()
def feature_maps(
    model: nn.Module, layers: Mapping[str, nn.Module], x_t: Tensor, t: Tensor
) -> dict[str, Tensor]:
    """What `layers` of the model put out for model(x_t, t): name -> (B, C, h, w).

    Raises InputError where the model does not come by a layer.
    """
    maps, hooks = {}, []
    for name, layer in layers.items():

        def keep(module, given, output, name=name):
            maps[name] = output.detach()

        hooks.append(layer.register_forward_hook(keep))
    try:
        model(x_t, t)
    finally:
        for hook in hooks:
            hook.remove()
    missing = [name for name in layers if name not in maps]
    if missing:
        raise InputError(f"the model does not come by {', '.join(missing)}")
    return maps


def feature_film(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    schedule: NoiseSchedule,
    x0: Tensor,
    eps: Tensor,
    levels: Sequence[int] = (1, *range(100, 1001, 100)),
) -> Film:
    """Film of x0 noised to each of `levels`, beside 12 feature maps of a layer; a shot a layer.

    x0, eps: (3, H, W) with H dividing 192. The maps of a layer have one grey scale over all t.
    """
    t = torch.tensor(list(levels), device=x0.device)
    x_t = q_sample(schedule, x0.expand(len(t), -1, -1, -1), t, eps.expand(len(t), -1, -1, -1))
    left = to_uint8(x_t)
    frames = []
    for maps in feature_maps(model, layers, x_t, t).values():
        grey = channel_images(maps)[:, : COLUMNS * ROWS]  # (F, 12, h, w)
        for picture, channels in zip(left, grey, strict=True):
            frames.append(_beside(picture, channels))
    return Film(
        frames=torch.stack(frames),
        labels=[f"t = {level}" for level in levels] * len(layers),
        alt="A picture at noise level t, and beside it twelve feature maps of one layer.",
        caption="Left: x\u209c. Right: the first twelve channels of the layer; bright is high.",
        name="Noise level t",
        dials=[Dial("Layer", list(layers))] if len(layers) > 1 else [],
        width=2 * frames[0].shape[2],
    )


def _beside(picture: Tensor, channels: Tensor) -> Tensor:
    cell = SIDE // ROWS
    maps = channels[:, None].expand(-1, 3, -1, -1)  # grey as colours
    maps = image_grid(maps, COLUMNS, pad=0, scale=cell // maps.shape[3], fill=MAT)
    picture = image_grid(picture[None], 1, scale=SIDE // picture.shape[2])
    gap = torch.full((3, SIDE, 6), MAT, dtype=torch.uint8)
    return torch.cat([picture, gap, _framed(maps)], dim=2)


def _framed(maps: Tensor) -> Tensor:
    """Fill up to SIDE rows, where a layer has fewer than twelve channels."""
    missing = SIDE - maps.shape[1]
    return torch.nn.functional.pad(maps, (0, 0, 0, missing), value=MAT)
