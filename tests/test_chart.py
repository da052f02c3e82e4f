"""Closed forms for the loss charts."""

import re

import pytest

from ldm_edu.chart import linear_ticks, log_ticks, loss_chart, smooth


def test_ticks_are_round_numbers_inside_the_range():
    assert linear_ticks(0, 3000) == [0, 500, 1000, 1500, 2000, 2500, 3000]
    assert log_ticks(0.5, 20) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert log_ticks(1, 1000) == pytest.approx([1, 10, 100, 1000])


def test_the_running_mean_of_a_line_is_the_line():
    line = [2.0 * k for k in range(100)]
    assert smooth(line)[:98] == pytest.approx(line[:98])


def test_a_wide_curve_is_drawn_on_a_logarithmic_axis():
    drawn = loss_chart("loss", [0, 1, 2], [1.0, 10.0, 100.0])
    raw = re.search(r'class="raw" points="([^"]*)"', drawn)[1].split()
    y = [float(point.split(",")[1]) for point in raw]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)
    assert "<title" in drawn
    assert "logarithmic axis" in drawn
    assert "linear axis" in loss_chart("loss", [0, 1], [1.0, 2.0])
    assert "linear axis" in loss_chart("loss", [0, 1], [1.0, 1.0])
