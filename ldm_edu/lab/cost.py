"""What a network costs in operations, counted; `ldm_edu.measures.seconds` has the time."""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def flop(model: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Operations of `run(model)`: the multiplications and additions of its matrix products.

    They are counted on a copy on the device "meta", where PyTorch plans and computes nothing:
    any size is quick. On the CPU its counter would miss attention. `run` makes its own inputs:
    `flop(unet, lambda unet: unet(torch.randn(1, 3, 32, 32), torch.tensor([1])))`.
    """
    return _counted(model, run).get_total_flops()


def flop_by_operator(model: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, int]:
    """The same, apart for each of PyTorch's operators, the dearest first.

    "addmm" and "mm" are linear layers with and without a bias, "bmm" the products in attention.
    """
    spent = _counted(model, run).get_flop_counts()["Global"]
    names = {str(operator).removeprefix("aten."): count for operator, count in spent.items()}
    return dict(sorted(names.items(), key=lambda pair: -pair[1]))


def flop_by_size(model: nn.Module, run: Callable[[nn.Module], object]) -> dict[int, int]:
    """The same, apart for each height of the maps that convolutions make: height -> operations.

    What lies between two convolutions, such as attention, counts with the second.
    """
    spent, counted = {}, 0

    def note(layer, given, output):
        nonlocal counted
        now = counter.get_total_flops()
        spent[output.shape[2]] = spent.get(output.shape[2], 0) + now - counted
        counted = now

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        copied = copy.deepcopy(model).to("meta")
        for layer in copied.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(note)
        run(copied)
    return spent


def _counted(model: nn.Module, run: Callable[[nn.Module], object]) -> FlopCounterMode:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        run(copy.deepcopy(model).to("meta"))
    return counter
