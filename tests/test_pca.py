"""Patch-PCA: no linear autoencoder of its size does better."""

import pytest
import torch
from einops import rearrange

from ldm_edu.errors import InputError
from ldm_edu.pca import patch_pca, pca_reconstruct


def images(n=20, size=8, seed=0):
    """Correlated pixels, so that some directions matter more than others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, size, size, generator=generator, dtype=torch.float64)
    return (x.cumsum(2) + x.cumsum(3)) / size


def patches_of(x, factor):
    return rearrange(x, "b c (h p) (w q) -> (b h w) (c p q)", p=factor, q=factor)


def error(x, factor, basis, mean):
    return (pca_reconstruct(x, factor, basis, mean) - x).square().mean().item()


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_basis_is_orthonormal_and_coefficients_uncorrelated(factor):
    x, channels = images(), min(3 * factor**2, 7)
    basis, mean, std = patch_pca(x, factor, channels)
    patches = patches_of(x, factor)
    torch.testing.assert_close(basis.T @ basis, torch.eye(channels).double())
    torch.testing.assert_close(mean, patches.mean(0))
    covariance = ((patches - mean) @ basis).T.cov()
    torch.testing.assert_close(covariance, torch.diag(std**2), rtol=1e-9, atol=1e-12)
    assert (std.diff() <= 0).all()


@pytest.mark.parametrize("channels", [1, 4, 11])
def test_no_other_orthonormal_basis_does_better(channels):
    x = images()
    basis, mean, _ = patch_pca(x, 2, channels)
    best = error(x, 2, basis, mean)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 0.1, 10.0):  # neighbours and strangers
        for _ in range(20):
            noise = torch.randn(basis.shape, generator=generator, dtype=torch.float64)
            other = torch.linalg.qr(basis + size * noise)[0]
            assert error(x, 2, other, mean) > best
            assert error(x, 2, basis, mean + size * noise[:, 0]) >= best


def test_its_error_is_the_variance_left_out():
    x = images()
    every = patch_pca(x, 2, 12)[2]
    count = len(patches_of(x, 2))
    for channels in range(1, 13):
        basis, mean, std = patch_pca(x, 2, channels)
        left = every[channels:].square().sum().item() * (count - 1) / count / 12
        assert error(x, 2, basis, mean) == pytest.approx(left, rel=1e-8, abs=1e-14)
        torch.testing.assert_close(std, every[:channels])


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_all_components_lose_nothing(factor):
    x = images()
    basis, mean, _ = patch_pca(x, factor, 3 * factor**2)
    torch.testing.assert_close(pca_reconstruct(x, factor, basis, mean), x)


def test_each_component_has_a_sign_of_its_own():
    """The eigenvectors' signs are arbitrary; ours do not depend on the solver."""
    basis = patch_pca(images(), 2, 12)[0]
    assert (basis.sum(0) > 0).all()


def test_the_dtype_is_the_images():
    parts = patch_pca(images().float(), 2, 3)
    assert [p.dtype for p in parts] == [torch.float32] * 3
    assert [tuple(p.shape) for p in parts] == [(12, 3), (12,), (3,)]


@pytest.mark.parametrize("channels", [0, -1, 13])
def test_more_components_than_numbers_are_refused(channels):
    with pytest.raises(InputError, match=rf"1\.\.12, found {channels}"):
        patch_pca(images(), 2, channels)
