"""PSNR by its definition."""

import math

import pytest
import torch

from ldm_edu.errors import InputError
from ldm_edu.metrics import psnr


@pytest.mark.parametrize("d", [2.0, 0.2, 0.02])
def test_a_constant_error_of_d_is_20_log_2_over_d(d):
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    expected = 20 * math.log10(2 / d)
    assert psnr(x, x + d).tolist() == pytest.approx([expected] * 2)
    assert psnr(x, x - d).tolist() == pytest.approx([expected] * 2)


def test_in_bytes_it_is_the_usual_255():
    a, b = torch.randint(0, 256, (2, 5, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    mse = (a - b).double().square().mean((1, 2, 3))
    expected = 10 * torch.log10(255**2 / mse)
    found = psnr(a.double() / 127.5 - 1, b.double() / 127.5 - 1)
    torch.testing.assert_close(found, expected)


def test_each_image_has_its_own_value_and_equal_ones_infinity():
    x = torch.zeros(2, 3, 4, 4)
    y = x.clone()
    y[1, 0, 0, 0] = 2
    assert psnr(x, y).tolist() == pytest.approx([math.inf, 10 * math.log10(48)])


def test_other_shapes_are_refused():
    with pytest.raises(
        InputError, match=r"\(2, 3, 4, 4\) and \(1, 3, 4, 4\)"
    ):  # would broadcast
        psnr(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
