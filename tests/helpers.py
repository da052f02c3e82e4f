"""What several test files need."""

import torch
from torch import nn


def filled(model: nn.Module, seed: int = 0, std: float = 0.1) -> nn.Module:
    """Random weights everywhere: zero-initialised layers would hide what is before them."""
    torch.manual_seed(seed)
    for p in model.parameters():
        nn.init.normal_(p, std=std)
    for m in model.modules():
        if isinstance(m, nn.GroupNorm | nn.LayerNorm):
            m.weight.data += 1
    return model.eval()
