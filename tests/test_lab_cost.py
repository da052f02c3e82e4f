"""Operations are counted as by hand."""

import pytest
import torch
from torch import nn

from ldm_edu import UNet, UNetConfig
from ldm_edu.lab.cost import flop, flop_by_operator, flop_by_size


def conv(i, o, side, k=3, stride=1):
    return 2 * i * k * k * o * (side // stride) ** 2


class Attention(nn.Module):
    def forward(self, q):
        return nn.functional.scaled_dot_product_attention(q, q, q)


def test_a_linear_layer_a_convolution_and_attention_cost_what_they_cost_by_hand():
    assert flop(nn.Linear(5, 7), lambda m: m(torch.randn(3, 5))) == 2 * 3 * 5 * 7
    layer = nn.Conv2d(3, 8, 3, padding=1)
    assert flop(layer, lambda m: m(torch.randn(2, 3, 16, 16))) == 2 * conv(3, 8, 16)
    # two products of (64, 8) and (8, 64) numbers a head
    assert flop(Attention(), lambda m: m(torch.randn(1, 2, 64, 8))) == 2 * 2 * 2 * 64 * 64 * 8


def test_a_training_step_costs_three_times_the_way_forward():
    net = nn.Sequential(*(nn.Linear(64, 64) for _ in range(50)))
    forward = flop(net, lambda m: m(torch.randn(4, 64)))
    both = flop(net, lambda m: m(torch.randn(4, 64)).sum().backward())
    assert both / forward == pytest.approx(3, abs=0.03)  # less the gradient of the input


def test_the_model_is_left_as_it_was():
    net = nn.Linear(2, 2)
    flop(net, lambda m: m(torch.randn(1, 2)).sum().backward())
    assert net.weight.device.type == "cpu" and net.weight.grad is None


def test_operations_are_told_apart_by_their_kind():
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 500)
    net = nn.Sequential(*layers, nn.Linear(500, 1, bias=False))
    found = flop_by_operator(net, lambda m: m(torch.randn(1, 3, 8, 8)))
    assert list(found.items()) == [
        ("addmm", 2 * 4 * 64 * 500),
        ("convolution", conv(3, 4, 8)),
        ("mm", 2 * 500),
    ]
    products = flop_by_operator(Attention(), lambda m: m(torch.randn(1, 2, 64, 8)))
    assert products == {"bmm": 2 * 2 * 2 * 64 * 64 * 8}


def test_operations_are_told_apart_by_the_size_of_the_map():
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1, stride=2)
    net = nn.Sequential(*layers, nn.Conv2d(6, 5, 1))
    by_size = flop_by_size(net, lambda m: m(torch.randn(1, 3, 16, 16)))
    assert by_size == {16: conv(3, 4, 16), 8: conv(4, 6, 16, stride=2) + conv(6, 5, 8, k=1)}


def test_the_sizes_of_a_unet_add_up_to_all_of_it():
    unet = UNet(UNetConfig(3, 3, (8, 16), 1, (False, True), heads=2, groups=4))

    def run(model):
        return model(torch.randn(1, 3, 16, 16), torch.tensor([1]))

    by_size = flop_by_size(unet, run)
    assert set(by_size) == {16, 8}
    assert sum(by_size.values()) == flop(unet, run)
