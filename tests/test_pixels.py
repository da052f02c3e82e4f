"""The identity in an autoencoder's place: nothing is lost, and a pipeline takes it."""

import pytest
import torch

from ldm_edu import LatentDiffusion, NoiseSchedule, UNet, UNetConfig
from ldm_edu.errors import InputError
from ldm_edu.pixels import PixelSpace

UNET = UNetConfig(3, 3, channels=(8, 8), blocks=1, heads=2, groups=4)


def test_what_goes_in_comes_out_and_has_unit_variance_between():
    x = torch.rand(50, 3, 8, 8) * torch.tensor([0.1, 0.5, 1.0])[:, None, None] - 0.3
    space = PixelSpace()
    space.set_latent_scale(x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0))
    posterior = space.encode(x)
    z = posterior.sample()
    assert torch.equal(z, posterior.mean)  # no spread
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3))
    torch.testing.assert_close(space.decode(z), x, atol=1e-6, rtol=0)


def test_a_pipeline_samples_at_full_resolution():
    pipe = LatentDiffusion(PixelSpace(), UNet(UNET), NoiseSchedule(), "v", 16)
    assert pipe.latent_shape == (3, 16, 16)
    assert pipe.sample(2, steps=2).shape == (2, 3, 16, 16)


def test_a_pixel_pipeline_is_saved_and_loaded(tmp_path):
    space = PixelSpace()
    space.set_latent_scale(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0]))
    saved = LatentDiffusion(space, UNet(UNET), NoiseSchedule(), "v", 16)
    saved.save(tmp_path / "pixels")
    loaded = LatentDiffusion.load(tmp_path / "pixels", device="cpu")
    assert isinstance(loaded.autoencoder, PixelSpace)
    assert torch.equal(loaded.sample(2, steps=2), saved.sample(2, steps=2))
    x = saved.sample(1, steps=1)
    assert torch.equal(loaded.encode(x), saved.encode(x))


@pytest.mark.parametrize("x", [torch.zeros(2, 1, 4, 4), torch.zeros(3, 4, 4)])
def test_other_shapes_are_refused(x):
    with pytest.raises(InputError, match=r"must be float \(B, 3, H, W\)"):
        PixelSpace().encode(x)


def test_bytes_are_refused():
    with pytest.raises(InputError, match=r"found torch.uint8"):
        PixelSpace().encode(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
