"""Each number by its definition: closed forms, slow loops, sets made to know the answer."""

import math

import pytest
import torch
from helpers import some_gpu

from ldm_edu import metrics
from ldm_edu.errors import InputError
from ldm_edu.metrics import (
    frechet_distance,
    kernel_distance,
    nearest,
    precision_recall,
    psnr,
    ssim,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# ---- images


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


def slow_ssim(x, y):
    """Wang's eq. 13 as printed, window by window, for one channel (H, W)."""
    weight = torch.tensor(
        [
            [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)]
            for i in range(11)
        ],
        dtype=torch.float64,
    )
    weight /= weight.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (s[top : top + 11, left : left + 11] for s in (x, y))
            mu_a, mu_b = (weight * a).sum(), (weight * b).sum()
            var_a = (weight * (a - mu_a) ** 2).sum()
            var_b = (weight * (b - mu_b) ** 2).sum()
            covariance = (weight * (a - mu_a) * (b - mu_b)).sum()
            c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
            values.append(
                (2 * mu_a * mu_b + c1)
                * (2 * covariance + c2)
                / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
            )
    return torch.stack(values).mean()


def test_ssim_is_the_printed_formula():
    x = draw(2, 2, 13, 15).clamp(-1, 1)
    y = (x + 0.3 * draw(2, 2, 13, 15, seed=1) + 0.1).clamp(-1, 1)
    slow = [
        torch.stack([slow_ssim(x[i, c], y[i, c]) for c in range(2)]).mean() for i in range(2)
    ]
    torch.testing.assert_close(ssim(x, y), torch.stack(slow))


def test_ssim_of_an_image_with_itself_is_1():
    x = draw(3, 3, 16, 16).clamp(-1, 1)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 3, abs=1e-12)


def test_ssim_of_a_checkerboard_with_its_negative_is_all_structure():
    """Windows of mean 0 and variance 1: luminance 1, structure (-2 + c2) / (2 + c2)."""
    rows = torch.arange(16)
    board = (1.0 - 2 * ((rows + rows[:, None]) % 2)).expand(1, 3, 16, 16)
    c2 = 0.06**2
    assert ssim(board, -board).item() == pytest.approx((-2 + c2) / (2 + c2), abs=1e-4)


def test_ssim_of_two_flat_images_is_its_luminance():
    a, b = torch.full((1, 3, 12, 12), 0.5), torch.full((1, 3, 12, 12), -0.25)
    c1 = 0.02**2
    expected = (2 * 0.5 * -0.25 + c1) / (0.5**2 + 0.25**2 + c1)
    assert ssim(a, b).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_other_shapes_are_refused(measure):
    with pytest.raises(InputError, match=r"\(2, 3, 16, 16\) and \(1, 3, 16, 16\)"):
        measure(torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16))  # would broadcast


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_bytes_have_another_range_and_are_refused(measure):
    x = torch.zeros(2, 3, 16, 16)
    for pair in ((x.byte(), x.byte()), (x, x.byte())):
        with pytest.raises(InputError, match=r"in \[-1, 1\], found .*torch.uint8"):
            measure(*pair)


def test_ssim_needs_room_for_its_window():
    with pytest.raises(InputError, match=r"11x11 pixels, found \(10, 16\)"):
        ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))


# ---- sets of features


def with_moments(n, mu, covariance, seed):
    """n points whose mean and covariance are exactly these."""
    points = draw(n, len(mu), seed=seed)
    points = points - points.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.T))).T
    return points @ whiten @ torch.linalg.cholesky(covariance).T + mu


def spread(*diagonal):
    return torch.diag(torch.tensor(diagonal, dtype=torch.float64))


def test_frechet_of_gaussians_with_one_basis_is_that_of_means_and_deviations():
    mu_a, mu_b = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], dtype=torch.float64)
    turn = torch.linalg.qr(draw(3, 3)).Q
    a = with_moments(50, mu_a, turn @ spread(1, 4, 9) @ turn.T, seed=1)
    b = with_moments(70, mu_b, turn @ spread(16, 4, 1) @ turn.T, seed=2)
    expected = (9 + 0 + 4) + (1 - 4) ** 2 + (2 - 2) ** 2 + (3 - 1) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_of_gaussians_in_the_plane_is_the_closed_form():
    """Of 2x2 matrices, tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))."""
    A = torch.tensor([[2.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    B = torch.tensor([[1.0, -0.4], [-0.4, 0.5]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    a, b = with_moments(40, zero, A, seed=1), with_moments(40, zero, B, seed=2)
    M = A @ B
    cross = (M.trace() + 2 * M.det().sqrt()).sqrt()
    expected = (A.trace() + B.trace() - 2 * cross).item()
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_of_a_set_with_itself_is_0_even_with_fewer_points_than_dimensions():
    a = draw(5, 20).float()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, a + 2) == pytest.approx(20 * 4, rel=1e-5)


def slow_mmd(x, y):
    """Gretton et al. 2012, eq. 3, pair by pair."""

    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    m, n = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j)
    yy = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j)
    xy = sum(kernel(a, b) for a in x for b in y)
    return xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2 * xy / (m * n)


def test_kernel_distance_of_whole_sets_is_the_double_loop():
    x, y = draw(9, 4), 0.5 * draw(9, 4, seed=1) + 1
    mean, deviation = kernel_distance(x, y, subsets=3)  # each subset is everything
    assert mean == pytest.approx(slow_mmd(x, y))
    assert deviation == pytest.approx(0, abs=1e-12)


def test_kernel_distance_of_one_distribution_is_0_on_average():
    """A biased estimate would be near 2 (E k(x, x) - E k(x, y)) / 12, which is above 1."""
    pairs = [(draw(12, 3, seed=2 * i), draw(12, 3, seed=2 * i + 1)) for i in range(400)]
    found = torch.tensor([kernel_distance(x, y, subsets=1)[0] for x, y in pairs])
    assert abs(found.mean()) < 4 * found.std() / 400**0.5 < 0.2


def test_kernel_distance_takes_subsets_of_both_and_tells_their_spread():
    x, y = draw(60, 4), draw(80, 4, seed=1) + 1
    mean, deviation = kernel_distance(x, y, subsets=200, size=20)
    assert mean == pytest.approx(slow_mmd(x, y), rel=0.1)
    assert 0 < deviation < mean
    assert (mean, deviation) == kernel_distance(x, y, subsets=200, size=20)
    assert mean != kernel_distance(x, y, subsets=200, size=20, seed=1)[0]


def line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def test_precision_and_recall_on_a_line():
    # with k = 1 each real point reaches 1 to both sides: [-1, 2] and [9, 12]
    real = line(0, 1, 10, 11)
    fake = line(0.5, 2, 3.5, -7)  # reach 1.5, 1.5, 1.5, 7.5
    # 0.5 and 2 lie in the real balls; 0 and 1 lie in fake balls, 10 and 11 in none
    assert precision_recall(real, fake, k=1) == (0.5, 0.5)
    fake = line(0.5, 0.6, 0.7, 0.8)  # all in one place
    assert precision_recall(real, fake, k=1) == (1.0, 0.0)
    assert precision_recall(fake, real, k=1) == (0.0, 1.0)


def test_precision_reaches_to_the_third_neighbour():
    real, fake = line(0, 1, 2, 3), line(6, 6.1, -3, -3.1)
    assert precision_recall(real, fake, k=3)[0] == 0.5  # 0 and 3 reach 3: 6 and -3 touch
    assert precision_recall(real, fake, k=2)[0] == 0


def test_precision_of_a_set_with_itself_is_1(monkeypatch):
    a, b = draw(30, 2), draw(30, 2, seed=1)
    whole = precision_recall(a, b)
    monkeypatch.setattr(metrics, "_ROWS", 7)
    assert precision_recall(a, a) == (1.0, 1.0)
    assert precision_recall(a, a + 100) == (0.0, 0.0)
    assert precision_recall(a, b) == whole and 0 < whole[0] < 1


def test_nearest_is_found_in_pieces_and_its_distance_is_exact(monkeypatch):
    monkeypatch.setattr(metrics, "_ROWS", 10)
    reference, rows = draw(45, 3), draw(21, 3, seed=1)
    rows[5] = reference[43]
    found = nearest(rows, reference)
    apart = torch.cdist(rows, reference, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(found.index, apart.argmin(1))
    torch.testing.assert_close(found.distance, apart.amin(1))
    assert found.index[5] == 43 and found.distance[5] == 0


def test_nearest_of_copies_is_0_in_single_precision_too():
    reference = 100 + draw(50, 300).float()
    assert nearest(reference[[3, 7]], reference).distance.tolist() == [0.0, 0.0]


def test_nearest_leaves_out_the_row_to_skip(monkeypatch):
    reference = line(0, 1, 3, 7)
    for rows in (2000, 3):  # in one piece, in two
        monkeypatch.setattr(metrics, "_ROWS", rows)
        found = nearest(reference, reference, skip=torch.arange(4))
        assert found.index.tolist() == [1, 0, 1, 2]
        assert found.distance.tolist() == [1, 1, 2, 4]


def test_nearest_reads_a_reference_of_bytes():
    reference = torch.tensor([[0, 250], [255, 5]], dtype=torch.uint8)
    found = nearest(torch.tensor([[1.0, 250.0]]), reference)
    assert found.index.tolist() == [0] and found.distance.tolist() == [1.0]


def test_nearest_is_found_on_the_gpu_that_holds_the_features():
    reference, skip = torch.zeros(9, 3, dtype=torch.uint8), torch.arange(4)
    with some_gpu() as gpu:
        features = torch.zeros(4, 3, device=gpu)
        for rows in (reference, reference.to(gpu)):
            found = nearest(features, rows, skip)
            assert {f.device.type for f in found} == {gpu}
            assert [f.dtype for f in found] == [torch.float32, torch.int64]


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall])
def test_sets_that_cannot_be_compared_are_refused(measure):
    good = torch.zeros(5, 3)
    for bad in (torch.zeros(5, 4), torch.zeros(5), torch.zeros(1, 3)):
        with pytest.raises(InputError, match=r"of one D and N >= \d, found \(5, 3\) and"):
            measure(good, bad)
    with pytest.raises(InputError, match="not finite"):
        measure(good, good + torch.nan)


def test_numbers_that_would_measure_nothing_are_refused():
    a = draw(5, 3)
    for options in ({"subsets": 0}, {"size": 1}):
        with pytest.raises(InputError, match="subsets >= 1 and size >= 2, found "):
            kernel_distance(a, a, **options)
    for k in (0, -1):
        with pytest.raises(InputError, match=f"k must be at least 1, found {k}"):
            precision_recall(a, a, k=k)
    for bad in (math.nan, math.inf):
        other = a.clone()
        other[2, 1] = bad
        for pair in ((other, a), (a, other)):
            with pytest.raises(InputError, match="not finite"):
                nearest(*pair)


def test_precision_needs_one_n_and_nearest_one_width():
    with pytest.raises(InputError, match="real has N = 5, fake N = 6"):
        precision_recall(torch.zeros(5, 3), torch.zeros(6, 3))
    with pytest.raises(InputError, match=r"found \(5, 3\) and \(6, 4\)"):
        nearest(torch.zeros(5, 3), torch.zeros(6, 4))
    with pytest.raises(InputError, match=r"found \(1, 3\) and \(1, 3\)"):  # only itself
        nearest(torch.zeros(1, 3), torch.zeros(1, 3), skip=torch.zeros(1, dtype=torch.int64))
