"""Prompt-to-prompt: whose attention is whose, when, and that the U-Net is left as it was."""

import pytest
import torch
from einops import rearrange
from helpers import captioned_pipeline, filled

from ldm_edu import UNet, UNetConfig, samplers
from ldm_edu.errors import InputError
from ldm_edu.lab.attention import attention_weights
from ldm_edu.lab.word_swap import same_attention, swap_word
from ldm_edu.sampling import denoise

FIRST, SECOND = "a red circle", "a blue circle"
WORDS = [FIRST, SECOND, "a red square", "a large red circle"]


@pytest.fixture(scope="module")
def pipe():
    pipe = captioned_pipeline(WORDS, side=32, words_std=1.0)
    filled(pipe.unet, std=0.4)  # so that attention has a say
    return pipe


def a_unet():
    config = UNetConfig(4, 4, (8, 16), 1, (True, True), heads=2, context_dim=8, groups=4)
    return filled(UNet(config), 1)


def inputs(count):
    generator = torch.Generator().manual_seed(3)
    z_t = torch.randn(count, 4, 4, 4, generator=generator)
    return z_t, torch.full((count,), 500), torch.randn(count, 5, 8, generator=generator)


def test_the_last_half_of_a_batch_takes_the_weights_of_the_first():
    """Its own values, mixed by the weights of the row it is paired with, in every layer."""
    unet = a_unet()
    z_t, t, context = inputs(4)
    answers = []

    def keep(attention, given, answer):
        answers.append((attention, *given, answer))

    with torch.no_grad(), same_attention(unet, 2):
        for name, module in unet.named_modules():
            if name.endswith("cross_attention"):
                module.register_forward_hook(keep)
        unet(z_t, t, context)
    assert len(answers) == 7
    for attention, tokens, context, answer in answers:
        weights = attention_weights(attention, tokens, context)[[0, 1, 0, 1]]
        v = rearrange(attention.to_v(context), "b m (h d) -> b h m d", h=2)
        wanted = attention.to_out(rearrange(weights @ v, "b h n d -> b n (h d)"))
        torch.testing.assert_close(answer, wanted)


def test_under_guidance_each_half_is_paired_within_itself():
    """With the same inputs in both pairs, a batch of 4n is twice a batch of 2n."""
    unet = a_unet()
    z_t, t, context = inputs(2)
    with torch.no_grad(), same_attention(unet, 1):
        once = unet(z_t, t, context)
        twice = unet(z_t.repeat(2, 1, 1, 1), t.repeat(2), context.repeat(2, 1, 1))
    torch.testing.assert_close(twice, once.repeat(2, 1, 1, 1))


def test_the_first_half_is_as_without_and_the_unet_is_left_as_it_was():
    unet = a_unet()
    z_t, t, context = inputs(2)
    with torch.no_grad():
        before = unet(z_t, t, context)
        with same_attention(unet, 1):
            within = unet(z_t, t, context)
        torch.testing.assert_close(within[0], before[0])
        assert (within[1] - before[1]).abs().max() > 1e-3
        assert torch.equal(unet(z_t, t, context), before)
        with pytest.raises(RuntimeError), same_attention(unet, 1):
            raise RuntimeError
        assert torch.equal(unet(z_t, t, context), before)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++"])
def test_without_a_share_both_are_plain_samples(pipe, sampler):
    options = {"sampler": sampler, "steps": 4, "seed": 5}
    found = swap_word(pipe, FIRST, SECOND, 0.0, 2, **options)
    for pictures, caption in zip(found, (FIRST, SECOND), strict=True):
        wanted = pipe.sample(2, prompt=caption, **options)
        torch.testing.assert_close(pictures, wanted, rtol=1e-4, atol=1e-4)


def test_the_first_caption_is_never_changed_and_the_second_is(pipe):
    plain = swap_word(pipe, FIRST, SECOND, 0.0, steps=4)
    kept = swap_word(pipe, FIRST, SECOND, 1.0, steps=4)
    torch.testing.assert_close(kept[0], plain[0], rtol=1e-4, atol=1e-4)
    assert (kept[1] - plain[1]).abs().max() > 1e-3
    same = swap_word(pipe, FIRST, FIRST, 1.0, steps=4)
    torch.testing.assert_close(same[1], plain[0], rtol=1e-4, atol=1e-4)


def test_the_whole_caption_may_be_kept_instead(pipe):
    """With all of it kept both are the first; with half, the second takes over half-way."""
    options = {"keep": "caption", "steps": 4, "seed": 2, "guidance": 3.0}
    both = swap_word(pipe, FIRST, SECOND, 1.0, **options)
    torch.testing.assert_close(both[0], both[1])
    found = swap_word(pipe, FIRST, SECOND, 0.5, **options)
    z, levels = pipe.noise(1, seed=2), pipe.timesteps(4)
    for caption, part, end in ((FIRST, levels[:2], levels[2]), (SECOND, levels[2:], 0)):
        predict = pipe.predictor(1, caption, 3.0)
        rule, randn = samplers.rule_named("ddim"), torch.zeros_like
        z = list(denoise(predict, pipe.schedule, z, rule, part, randn, end))[-1].z_t
    torch.testing.assert_close(found[1], pipe.decode(z), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="keep"):
        swap_word(pipe, FIRST, SECOND, 0.5, keep="maps")


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_the_share_is_that_of_the_first_steps(pipe, monkeypatch, share, kept):
    from ldm_edu.lab import word_swap

    shared, seen = [], []
    plain = pipe.unet.forward

    def watched(z_t, t, context):
        seen.append(t[0].item())
        return plain(z_t, t, context)

    real = word_swap.same_attention

    def noted(unet, n):
        shared.append(len(seen))
        return real(unet, n)

    monkeypatch.setattr(pipe.unet, "forward", watched)
    monkeypatch.setattr(word_swap, "same_attention", noted)
    swap_word(pipe, FIRST, SECOND, share, steps=4)
    assert seen == [1000, 750, 500, 250]
    assert shared == list(range(kept))


def test_captions_of_other_lengths_and_other_shares_are_refused(pipe):
    with pytest.raises(InputError, match="as many words"):
        swap_word(pipe, FIRST, "a large red circle", 0.5)
    with pytest.raises(InputError, match="share"):
        swap_word(pipe, FIRST, SECOND, 1.1)
