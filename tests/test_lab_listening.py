"""What a model is told when it is asked whether it listens, and how its answers are drawn."""

import pytest
import torch
from helpers import captioned_pipeline, some_gpu
from torch import nn

from ldm_edu import NoiseSchedule, UNet
from ldm_edu.diffusion import q_sample, velocity
from ldm_edu.lab.figures import subplots
from ldm_edu.lab.listening import TOLD, draw_listening, told_losses
from ldm_edu.seeds import noise_of

CAPTIONS = ["a red circle", "a blue square", "a red square"]


@pytest.fixture(scope="module")
def pipe():
    return captioned_pipeline(CAPTIONS, side=16, words_std=1.0)


def test_it_is_the_error_of_v_under_the_right_no_and_the_next_caption(pipe):
    z0 = noise_of(3, 7, pipe.latent_shape)
    model = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    found = told_losses(model, pipe.tokenizer, pipe.schedule, z0, CAPTIONS, t=400)
    said = CAPTIONS, ["", "", ""], [*CAPTIONS[1:], CAPTIONS[0]]
    eps, t = noise_of(3, 0, pipe.latent_shape), torch.full((3,), 400)
    z_t, v = q_sample(pipe.schedule, z0, t, eps), velocity(pipe.schedule, z0, t, eps)
    assert list(found) == list(TOLD)
    for loss, captions in zip(found.values(), said, strict=True):
        with torch.no_grad():
            wanted = (pipe.unet(z_t, t, pipe.embed(captions)) - v).square().mean()
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
    assert len({f"{loss:.6f}" for loss in found.values()}) == 3


def test_a_model_on_a_gpu_is_asked_there(pipe):
    with some_gpu() as gpu:
        with torch.device(gpu):
            words = nn.Embedding(pipe.tokenizer.vocabulary, pipe.unet.config.context_dim)
            model = {"unet": UNet(pipe.unet.config), "text_encoder": words}
            z0 = torch.zeros(3, *pipe.latent_shape)
        assert list(told_losses(model, pipe.tokenizer, NoiseSchedule(), z0, CAPTIONS)) == [
            *TOLD
        ]


def test_the_chart_has_a_line_for_each_with_its_values_at_their_steps():
    _, axis = subplots()
    measured = [dict(zip(TOLD, (k, k + 0.1, k + 0.2), strict=True)) for k in (3.0, 2.0)]
    draw_listening(axis, [10, 20], measured)
    for told, line in zip(TOLD, axis.lines, strict=True):
        assert line.get_label() == told
        assert line.get_xydata().tolist() == [[10, measured[0][told]], [20, measured[1][told]]]
