"""Feature maps are what the layers put out, and a film of them has a shot a layer."""

import pytest
import torch
from helpers import some_gpu
from torch import Tensor, nn

from ldm_edu import NoiseSchedule
from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.images import to_uint8
from ldm_edu.lab.features import SIDE, feature_film, feature_maps

LEVELS = (1, 500, 1000)


class Two(nn.Module):
    """Twice the picture, and then a layer that t drives; the third is never come by."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 1, bias=False)
        self.twice.weight.data[:, :, 0, 0] = 2 * torch.eye(3)
        self.pooled, self.idle = nn.AvgPool2d(2), nn.Identity()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.pooled(self.twice(x_t) * t.view(-1, 1, 1, 1))


def test_maps_are_what_the_layers_put_out_and_no_hook_stays():
    model, x_t, t = Two().requires_grad_(False), torch.randn(2, 3, 8, 8), torch.tensor([1, 3])
    maps = feature_maps(model, {"a": model.twice, "b": model.pooled}, x_t, t)
    torch.testing.assert_close(maps["a"], 2 * x_t)
    torch.testing.assert_close(maps["b"], model(x_t, t))
    with pytest.raises(InputError, match="does not come by c"):
        feature_maps(model, {"c": model.idle}, x_t, t)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_frame_shows_the_picture_at_its_level():
    model, schedule = Two().requires_grad_(False), NoiseSchedule()
    x0, eps = torch.rand(3, 8, 8) * 2 - 1, torch.randn(3, 8, 8)
    film = feature_film(model, {"a": model.twice, "b": model.pooled}, schedule, x0, eps, LEVELS)
    assert film.labels == ["t = 1", "t = 500", "t = 1000"] * 2
    assert [dial.places for dial in film.dials] == [["a", "b"]]
    for frame, t in zip(film.frames, LEVELS * 2, strict=True):
        x_t = q_sample(schedule, x0[None], t, eps[None])
        assert torch.equal(frame[:, :: SIDE // 8, : SIDE : SIDE // 8], to_uint8(x_t)[0])


def test_a_model_on_a_gpu_is_asked_there():
    with some_gpu() as gpu:
        with torch.device(gpu):
            model, x0 = Two().requires_grad_(False), torch.zeros(3, 8, 8)
        film = feature_film(model, {"a": model.twice}, NoiseSchedule(), x0, x0, LEVELS)
        assert film.frames.device.type == "cpu"
