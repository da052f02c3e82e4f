"""What a published model consists of, and how it becomes ours."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.diffusion import Parameterisation
from ldm_edu.errors import CheckpointError
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.stable_diffusion.key_map import Layout, key_map
from ldm_edu.stable_diffusion.tensors import StoredTensor
from ldm_edu.text import TextEncoder, TextEncoderConfig
from ldm_edu.unet import UNet, UNetConfig

SUPPORTED = "supported: Stable Diffusion v1 (1.1 to 1.5, and models fine-tuned from them)"
GUIDANCE = 7.5  # Stable Diffusion's default
LATENT_SCALE = 0.18215  # of its latents, one number for all channels; no shift
# CompVis' schedule, and diffusers' settings of it: 50 steps are their 981, 961, ..., 1, and
# the last of them lands on their 0
SCHEDULE = NoiseSchedule("scaled_linear", 1000, 0.00085, 0.012)
GRID = Grid("leading", offset=1, final=1)

_MOST = 200  # a file that is made to take all day is refused


@dataclass(frozen=True)
class Published:
    """Sizes, settings and where the tensors are."""

    where: str  # for messages
    layout: Layout
    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text_encoder: TextEncoderConfig
    tensors: Mapping[str, Mapping[str, StoredTensor]]  # part -> their name -> where it lies
    tokenizer: ClipTokenizer
    image_size: int
    schedule: NoiseSchedule = SCHEDULE
    parameterisation: Parameterisation = "eps"
    grid: Grid = GRID
    latent_scale: float = LATENT_SCALE

    def build(self, device: torch.device, dtype: torch.dtype) -> LatentDiffusion:
        """The pipeline; nothing is read before everything is known to fit. CheckpointError.

        The autoencoder has at least float32: its activations overflow 16 bits.
        """
        self._check_sizes()
        with torch.device("meta"), _Undrawn():  # shapes, no memory
            modules = {
                "unet": UNet(self.unet),
                "autoencoder": Autoencoder(self.autoencoder),
                "text_encoder": TextEncoder(self.text_encoder),
            }
        found = {part: self.find(part, module) for part, module in modules.items()}
        for part, module in modules.items():
            wide = part == "autoencoder" and dtype.itemsize < 4
            _fill(module, found[part], device, torch.float32 if wide else dtype)
        modules["autoencoder"].latent_shift.zero_()
        modules["autoencoder"].latent_scale.fill_(self.latent_scale)
        return LatentDiffusion(
            **modules,
            schedule=self.schedule,
            parameterisation=self.parameterisation,
            image_size=self.image_size,
            tokenizer=self.tokenizer,
            guidance=GUIDANCE,
            grid=self.grid,
        )

    def _check_sizes(self) -> None:
        counts = (self.unet.blocks, self.unet.depth, self.autoencoder.blocks)
        if (found := max(*counts, self.text_encoder.layers)) > _MOST:
            raise CheckpointError(f"{self.where}: {found} blocks or layers; {SUPPORTED}")
        found, most = self.tokenizer, self.text_encoder
        if found.vocabulary > most.vocabulary or found.length > most.length:
            raise CheckpointError(
                f"{self.where}: the tokenizer makes {found.length} of {found.vocabulary} ids, "
                f"the text encoder reads {most.length} of {most.vocabulary}"
            )
        latent, width = self.autoencoder.latent_channels, self.text_encoder.width
        if (self.unet.in_channels, self.unet.out_channels) != (latent, latent):
            raise CheckpointError(
                f"{self.where}: the U-Net maps {self.unet.in_channels} channels to "
                f"{self.unet.out_channels}, the latent has {latent}; {SUPPORTED}, not those "
                "for inpainting (9 channels) or editing (8)"
            )
        if self.unet.context_dim != width:
            raise CheckpointError(
                f"{self.where}: the U-Net reads a context of {self.unet.context_dim}, the text "
                f"encoder makes {width}; {SUPPORTED}"
            )

    def find(self, part: str, module: nn.Module) -> dict[str, StoredTensor]:
        """{our name: where it lies}. Raises CheckpointError unless each of the module's tensors
        is there in its shape, and no other."""
        own, stored = module.state_dict(), self.tensors[part]
        names = key_map(part, own, module.config, self.layout)
        shapes = {theirs: tuple(own[ours].shape) for ours, theirs in names.items()}
        unlike = [n for n in shapes if n in stored and not _fits(stored[n].shape, shapes[n])]
        missing = [n for n in shapes if n not in stored]
        surplus = [n for n in stored if n not in shapes]
        if bad := unlike + missing + surplus:
            found = stored[bad[0]].shape if bad[0] in stored else "absent"
            wanted = shapes.get(bad[0], "absent")
            raise CheckpointError(
                f"{self.where}, {part}: {bad[0]} is {found}, but {wanted} in a Stable "
                f"Diffusion of these sizes; {len(unlike)} tensors have the wrong shape, "
                f"{len(missing)} are missing, {len(surplus)} left over"
            )
        return {ours: stored[theirs] for ours, theirs in names.items()}


class _Undrawn(TorchFunctionMode):
    """Leaves out the normal draws of new embeddings: on the meta device, where they do nothing,
    they would import a compiler, which takes 160 MB and seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)


def _fits(found: tuple[int, ...], own: tuple[int, ...]) -> bool:
    return found == own or (len(own) == 2 and found == (*own, 1, 1))  # see key_map


def _fill(
    module: nn.Module,
    found: Mapping[str, StoredTensor],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    tensors = {}
    for name, like in module.state_dict().items():
        if name in found:
            value = found[name].read().view(like.shape)
        else:  # ours alone
            value = torch.empty(like.shape)
        tensors[name] = value.to(device, dtype)  # one by one: the file's own are not kept
    module.load_state_dict(tensors, assign=True)
