"""Exercises: solutions pass, stubs are reported, and typical mistakes are named."""

import importlib.util
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import images, small_pipeline
from torch.utils.flop_counter import FlopCounterMode

from ldm_edu import (
    AutoencoderConfig,
    DiagonalGaussian,
    NoiseSchedule,
    WordTokenizer,
    metrics,
    samplers,
)
from ldm_edu.diffusion import diffusion_loss, loss_weight, q_sample, to_z0_eps
from ldm_edu.errors import InputError
from ldm_edu.lab.attention import attention_weights
from ldm_edu.lab.cost import flop
from ldm_edu.lab.exercises import EXERCISES, check, hint
from ldm_edu.lab.exercises.checking import HINTS, verdict
from ldm_edu.latents import LatentSet, measure_scale
from ldm_edu.layers import Attention
from ldm_edu.sampling import Prediction
from ldm_edu.seeds import slerp
from ldm_edu.training import update_ema

SOLUTIONS = Path(__file__).parent.parent / "notebooks" / "solutions"
MISTAKES = [
    pytest.param(exercise, said, wrong, id=f"{exercise.name}: {said[:40]}")
    for exercise in EXERCISES.values()
    for said, wrong in exercise.mistakes.items()
]


def solutions() -> dict:
    found = {}
    for path in sorted(SOLUTIONS.glob("[a-z]*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        own = {
            k: f for k, f in vars(module).items() if getattr(f, "__module__", "") == path.stem
        }
        assert not own.keys() & found.keys()
        found |= own
    return found


SOLVED = solutions()


def stub(*args):
    raise NotImplementedError


def test_every_exercise_has_one_solution_and_every_solution_an_exercise():
    assert SOLVED.keys() == EXERCISES.keys()


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right_and_the_stub_is_not_attempted(name, capsys):
    check(name, SOLVED[name])
    assert capsys.readouterr().out.startswith(f"{name}: right. ")
    check(name, stub)
    assert capsys.readouterr().out == f"{name}: not attempted yet.\n"


@pytest.mark.parametrize(("exercise", "said", "wrong"), MISTAKES)
def test_a_mistake_is_named(exercise, said, wrong):
    assert verdict(exercise, wrong) == f"not yet. {said}"


def moved(x_t, t, eps, ab):
    return (x_t - torch.sqrt(1 - ab[t - 1]) * eps) / torch.sqrt(ab[t - 1])


def unrooted(model, x0, t, eps, ab):
    a, s = ab[t, None], 1 - ab[t, None]
    return (model(a * x0 + s * eps, t) - (a * eps - s * x0)).pow(2).mean(dim=-1)


def flipped(model, x0, t, eps, ab):
    a, s = ab[t, None].sqrt(), (1 - ab[t, None]).sqrt()
    return (model(a * x0 + s * eps, t) - s * x0 - a * eps).pow(2).mean(dim=-1)


def rising(limit, ab):
    t = 1
    while ab[t] / (1 - ab[t]) >= limit:
        t += 1
    return t + 1


def last_above(limit, ab):
    return max(t for t in range(1, 1001) if ab[t] / (1 - ab[t]) >= limit)


def unmarked(channels, blocks):
    return [channels[0]] + [c for c in channels for _ in range(blocks)]


def overdone(channels, blocks):
    return [channels[0]] + [c for c in channels for _ in range(blocks + 1)]


def counted(caption, ids, length):
    row = [ids[word] for word in caption.split() if word in ids]
    while len(row) <= length:
        row.append(0)
    return row


def masked_late(scores):
    weights = scores.softmax(1)
    return weights * (torch.arange(len(scores))[:, None] >= torch.arange(len(scores)))


def looked_ahead(scores):
    future = torch.ones_like(scores).triu().bool()
    return scores.masked_fill(~future, float("-inf")).softmax(1)


def uncut(t, ab, gamma):
    return ab[t]  # SNR / (SNR + 1)


def clamped_latent(decode, z_t, v_hat, ab):
    z0_hat = ab**0.5 * z_t - (1 - ab) ** 0.5 * v_hat
    return torch.clip(decode(torch.clip(z0_hat, -1, 1)), -1, 1)


def backwards(a, b, share):
    angle = torch.acos((a / a.norm() * b / b.norm()).sum())
    return (torch.sin(share * angle) * a + torch.sin(angle - share * angle) * b) / angle.sin()


def grown(x_t, x0_hat, lambda_t, lambda_s):
    alpha, sigma = torch.sigmoid(torch.tensor([[1.0], [-1.0]]) * 2 * lambda_s).sqrt()
    kept = sigma / torch.sigmoid(torch.tensor(-2 * lambda_t)).sqrt()
    return kept * x_t + alpha * (1 - math.exp(lambda_s - lambda_t)) * x0_hat


def whole_log(x_t, x0_hat, lambda_t, lambda_s):
    ab_t, ab_s = torch.sigmoid(torch.tensor([lambda_t, lambda_s], dtype=torch.float64))
    kept, h = ((1 - ab_s) / (1 - ab_t)) ** 0.5, lambda_s - lambda_t
    return kept * x_t + ab_s**0.5 * (1 - math.exp(-h)) * x0_hat


def unscaled(q, k, word, width):
    return (q @ k.T).softmax(-1)[:, word].view(-1, width)


def other_convention(model, z_t, t, context, nothing, w):
    return (1 + w) * model(z_t, t, context) - w * model(z_t, t, nothing)


WRITTEN = [  # as a student may write them, not as the exercises hold them
    ("latent_shape", lambda size, f, c: (size // f, size // f, c), "channels come first"),
    ("latent_shape", lambda size, f, c: (c, size // f**2, size // f**2), "divide by f twice"),
    ("unet_calls", lambda n, steps, w: n * steps, "twice a step"),
    ("unet_calls", lambda n, steps, w: steps if w == 1 else 2 * steps, "Every one of the n"),
    ("recover_x0", lambda x, t, e, ab: (x - (1 - ab[t]) * e) / ab[t].sqrt(), "square root"),
    ("recover_x0", lambda x, t, e, ab: x / ab[t].sqrt() + (1 / ab[t] - 1).sqrt() * e, "sign"),
    ("recover_x0", moved, "off by one"),
    ("jump", lambda x, s, t, e, ab: ab[t].sqrt() * x + (1 - ab[t]).sqrt() * e, "were clean"),
    ("jump", lambda x, s, t, e, ab: ab[t] / ab[s] * x + (1 - ab[t] / ab[s]) * e, "roots"),
    ("first_below", rising, "off by one, too late"),
    ("first_below", last_above, "off by one, too early"),
    ("score", lambda x, x0, ab: (x - ab**0.5 * x0) / (1 - ab), "sign is swapped"),
    ("score", lambda x, x0, ab: (ab * x0 - x) / (1 - ab), "square root is missing"),
    ("v_loss", unrooted, "Square roots are missing"),
    ("v_loss", flipped, "sign before x0 is swapped"),
    ("ddim_back", lambda x, e, s, t: t / s * (x - (1 - s) * e) + (1 - t) * e, "roots"),
    ("ddim_back", lambda x, e, s, t: t**0.5 * x + (1 - t) ** 0.5 * e, "as if it were clean"),
    ("group_norm", lambda h, g: torch.nn.functional.group_norm(h, h.shape[1]), "each channel"),
    ("group_norm", lambda h, g: torch.nn.functional.group_norm(h, 1), "all channels together"),
    ("upsample", lambda h: torch.cat([torch.cat([h, h], 3)] * 2, 2), "side by side"),
    ("upsample", lambda h: h.repeat_interleave(2, 3).repeat(1, 1, 2, 1), "rows as a block"),
    ("skip_channels", unmarked, "after each downsampling"),
    ("snr_weight", lambda t, ab, g: (ab[t] / (1 - ab[t])).clamp(max=g), "divide it by SNR + 1"),
    ("snr_weight", lambda t, ab, g: (g * (1 - ab[t]) / ab[t]).clamp(max=1), "right for an er"),
    ("snr_weight", uncut, "not cut off"),
    ("average_share", lambda k, d: d**k, "enter with 1 - decay"),
    ("average_share", lambda k, d: (1 - d) * d ** (k + 1), "k = 0, have not been shrunk"),
    ("conv_flop", lambda i, o, k, h, w: i * o * k * k * h * w, "factor 2"),
    ("conv_flop", lambda i, o, k, h, w: 2 * k * i * o * h * w, "k wide and k high"),
    ("cheaper", lambda f: [f * f, f * f], "both of a pair"),
    ("cheaper", lambda f: torch.tensor([f, f * f]), "less wide and f times less high"),
    ("decoded_guess", clamped_latent, "Clamp after decoding"),
    ("decoded_guess", lambda d, z, v, ab: d(ab**0.5 * z - (1 - ab) ** 0.5 * v), "overshoot"),
    ("break_even", lambda p, q, b: -(-b // p), "divide by the difference"),
    ("break_even", lambda p, q, b: b / (p - q), "Steps are whole"),
    ("tokenize", lambda c, ids, n: [ids[w] for w in c.split() if w in ids], "not filled up"),
    ("tokenize", counted, "one entry too many"),
    ("causal_weights", masked_late, "mask after the softmax"),
    ("causal_weights", looked_ahead, "the other triangle"),
    ("levels_left", lambda s, levels: levels[: int(s * len(levels))], "the first levels"),
    ("levels_left", lambda s, levels: levels[-round(s * len(levels)) :], "One too many"),
    ("blend", lambda z, z0, m, eps, ab: z.where(m > 0, z0), "put the clean latent in"),
    ("blend", lambda z, z0, m, eps, ab: z.where(m > 0, ab * z0 + (1 - ab) * eps), "roots"),
    ("skip_channels", overdone, "the last level does not downsample"),
    ("psnr", lambda x, y: -10 * torch.log10(((x - y) ** 2).mean((1, 2, 3))), "range is 1"),
    ("psnr", lambda x, y: 10 * torch.log10(4 / ((x - y) ** 2).mean()), "one number for the"),
    ("fewer_times", lambda f, c: 3 * f / c, "f pixels high"),
    ("fewer_times", lambda f, c: c / (3 * f * f), "turn the fraction round"),
    ("channel_kl", lambda m, v: (m**2 + v.exp() - 1 - v).sum((0, 2, 3)) / len(m), "1/2"),
    ("channel_kl", lambda m, v: (m**2 + v.exp() - 1 - v).mean((0, 2, 3)) / 2, "add up"),
    ("latent_std", lambda m, s: m.std(), "own variance is missing"),
    ("latent_std", lambda m, s: (m.var() + s.mean()).sqrt(), "deviations do not"),
    ("unscaled_snr", lambda t, s, ab: s * ab[t] / (1 - ab[t]), "has to be squared"),
    ("unscaled_snr", lambda t, s, ab: ab[t] / (1 - ab[t]) / s**2, "divide by sigma"),
    ("slerp", lambda a, b, s: torch.lerp(a, b, s), "straight line"),
    ("slerp", backwards, "swapped"),
    ("order", lambda n, m, a, b: math.log(b / a) / math.log(m / n), "sign is swapped"),
    ("order", lambda n, m, a, b: math.log(a / b, 2), "any factor"),
    ("lambda_step", grown, "sign in the exponent"),
    ("lambda_step", whole_log, "half the logarithm"),
    ("slope_ahead", lambda u, t, r_u, r_t, r_s: 3 / 2 * t - u / 2, "of one length"),
    ("slope_ahead", lambda u, t, a, b, c: t + (t - u) * (c - b) / (b - a), "at the end"),
    ("word_map", unscaled, "root of d"),
    ("word_map", lambda q, k, i, n: (q @ k.T / q.shape[1] ** 0.5).softmax(1)[:, i], "a list"),
    ("drop_captions", lambda ids, u, p: ids * (u < p)[:, None], "wrong way round"),
    ("drop_captions", lambda ids, u, p: ids[u >= p], "take rows away"),
    ("guided", other_convention, "other convention"),
    ("guided", lambda m, z, t, c, n, w: w * m(z, t, c) + m(z, t, n), "counts twice"),
]


@pytest.mark.parametrize(("name", "answer", "named"), WRITTEN)
def test_a_typical_wrong_answer_is_named(name, answer, named):
    said = verdict(EXERCISES[name], answer)
    assert said.startswith("not yet. ")
    assert named in said
    assert "Stuck?" not in said


def test_typical_wrong_answers_are_tried_for_every_exercise():
    tried = [name for name, *_ in WRITTEN]
    assert all(tried.count(name) >= 2 for name in EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_there_are_two_mistakes_and_three_hints_that_say_more(name):
    exercise = EXERCISES[name]
    assert len(exercise.mistakes) >= 2
    assert len(set(exercise.hints)) == HINTS
    assert all(not said.endswith((" ", ",")) for said in (*exercise.mistakes, *exercise.hints))


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda *args: None, "returns nothing"),
        (lambda *args: "a text", "returns a str, not numbers"),
        (lambda *args: 1 / 0, "stopped for"),
        (lambda *args: torch.zeros(7, 7, 7), "has shape (7, 7, 7), expected"),
    ],
)
def test_answers_of_another_kind_are_told(name, answer, said):
    assert said in verdict(EXERCISES[name], answer)


@pytest.mark.parametrize("name", ["recover_x0", "jump", "score", "group_norm"])
def test_an_unknown_mistake_is_shown_as_found_and_expected(name):
    said = verdict(EXERCISES[name], lambda *args: SOLVED[name](*args) + 0.01)
    assert "found" in said
    assert "expected" in said
    assert f"hint('{name}', 1)" in said


def matmul_upsample(h):
    rows, columns = (torch.eye(n).repeat_interleave(2, 0) for n in h.shape[2:])
    return rows @ h @ columns.T


def by_numpy(channels, blocks):
    return np.array(SOLVED["skip_channels"](channels, blocks)[::-1])[::-1]


def row_by_row(x_t, x0_hat, ab):
    return [
        (ab**0.5 * guess - point) / (1 - ab) for point, guess in zip(x_t, x0_hat, strict=True)
    ]


ALSO_RIGHT = [
    ("upsample", matmul_upsample),  # what it makes is of the default dtype
    ("skip_channels", by_numpy),
    ("score", row_by_row),
    ("score", lambda x, x0, ab: (torch.sqrt(ab) * x0 - x) / (1 - ab)),
    ("score", lambda x, x0, ab: (math.sqrt(ab) * x0 - x) / (1 - ab)),
    ("average_share", lambda k, decay: Fraction((1 - decay) * decay**k)),
    ("first_below", lambda limit, ab: np.int64(SOLVED["first_below"](limit, ab))),
]


@pytest.mark.parametrize(("name", "answer"), ALSO_RIGHT)
def test_a_right_answer_of_another_kind_is_right(name, answer):
    assert verdict(EXERCISES[name], answer).startswith("right. ")


def power_sign(x_t, t, eps, alpha_bar):
    ab = alpha_bar[t]

    return (x_t - (1 - ab) ^ 0.5 * eps) / ab**0.5


def rooted_backwards(x_s, eps_hat, ab_s, ab_t):
    x0_hat = (x_s - (1 - ab_s) ** 0.5 * eps_hat) / ab_s**0.5
    return ab_t**0.5 * x0_hat + (ab_t.item() - 1) ** 0.5 * eps_hat


def padded_by_a_list(caption, ids, length):
    row = [ids[word] for word in caption.split() if word in ids]
    return [*row, [0] * (length - len(row))]


def damped(h, groups):
    x = h.unflatten(1, (groups, -1))
    std = x.var((2, 3, 4), correction=0, keepdim=True).sqrt() + 1e-5
    return ((x - x.mean((2, 3, 4), keepdim=True)) / std).flatten(1, 2)


def nearly_masked(scores):
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -10).softmax(1)


def cut_in_place(strength, levels):
    taken = int(strength * len(levels))
    del levels[:-taken]
    return levels


def early(caption, ids, length):
    return SOLVED["tokenize"](" ".join(dict.fromkeys(caption.split())), ids, length)


TOLD = [
    ("recover_x0", power_sign, "in line 4 of your function: .*a power is \\*\\*, not \\^"),
    ("ddim_back", rooted_backwards, "complex: is there a root of a negative number"),
    ("tokenize", padded_by_a_list, "something in the list .* is not a plain number"),
    ("group_norm", damped, r"at place \[\d, \d, \d, \d\], expected"),
    ("causal_weights", nearly_masked, r"found 0.99996 at place \[0, 0\], expected 1\."),
    ("first_below", lambda limit, ab: torch.ones(1), r"shape \(1,\), expected a single number"),
    ("levels_left", cut_in_place, "changes its argument number 2"),
    ("latent_shape", lambda size, f, c: (c, size / f, size / f), "whole numbers are asked for"),
    (
        "levels_left",
        lambda s, levels: [t for t in levels if t <= 1000 * s],
        "by the value of t",
    ),
    ("tokenize", early, "expected"),
    ("fewer_times", lambda f, c: 3 * f**2 // c, "expected"),
    ("unet_calls", lambda n, steps, w: n * steps * (1 if w in (0, 1) else 2), "expected 30"),
    ("drop_captions", lambda ids, u, p: ids * (u > p)[:, None], "expected"),
]


@pytest.mark.parametrize(("name", "answer", "said"), TOLD)
def test_what_is_wrong_is_told(name, answer, said):
    assert re.search(said, verdict(EXERCISES[name], answer))


def test_what_an_answer_writes_into_its_arguments_does_not_outlast_it():
    def in_place(limit, alpha_bar):
        alpha_bar /= 1 - alpha_bar
        return int((alpha_bar >= limit).sum())

    said = verdict(EXERCISES["first_below"], in_place)
    assert "changes its argument number 2" in said
    assert verdict(EXERCISES["first_below"], in_place) == said
    assert verdict(EXERCISES["first_below"], SOLVED["first_below"]).startswith("right. ")
    assert verdict(EXERCISES["jump"], SOLVED["jump"]).startswith("right. ")


def test_the_default_dtype_is_left_as_it_was():
    for answer in (stub, lambda *args: 1 / 0, SOLVED["recover_x0"]):
        verdict(EXERCISES["recover_x0"], answer)
        assert torch.get_default_dtype() == torch.float32


def test_an_answer_that_works_in_place_is_told():
    def in_place(x_t, t, eps, alpha_bar):
        right = SOLVED["recover_x0"](x_t, t, eps, alpha_bar)
        return x_t.copy_(right)

    assert "changes its argument number 1" in verdict(EXERCISES["recover_x0"], in_place)


def test_every_case_counts():
    for name, exercise in EXERCISES.items():
        cases = list(exercise.cases())
        last = exercise.cases()[cases[-1]]

        def wrong_at_last(*args, name=name, last=last):
            same = all(torch.equal(_n(a), _n(b)) for a, b in zip(args, last, strict=True))
            right = SOLVED[name](*args)
            return torch.as_tensor(right) + 1 if same else right

        assert verdict(exercise, wrong_at_last).startswith("not yet"), name


def _n(value):
    if isinstance(value, str):
        return torch.tensor(list(value.encode()))
    none = callable(value) or isinstance(value, dict)
    return torch.zeros(0) if none else torch.as_tensor(value)


def test_unknown_names_and_hints_are_refused(capsys):
    for wrong in (lambda: check("x", stub), lambda: hint("x"), lambda: hint("jump", 4)):
        with pytest.raises(InputError):
            wrong()
    hint("jump", 2)
    assert capsys.readouterr().out.startswith(f"jump, hint 2 of {HINTS}: kept = ")


# ---- the right answers are the library's, or torch's, not only our own formula


def test_start_exercises_agree_with_the_library():
    pipe = small_pipeline(words=True)
    f, channels = pipe.autoencoder.config.factor, pipe.autoencoder.config.latent_channels
    z = pipe.encode(torch.zeros(1, 3, 24, 24))
    assert SOLVED["latent_shape"](24, f, channels) == tuple(z[0].shape)

    seen = []
    pipe.unet.register_forward_pre_hook(lambda unet, given: seen.append(len(given[0])))
    for guidance in (1.0, 3.0):
        seen.clear()
        pipe.sample(3, prompt="red circle", steps=5, guidance=guidance)
        assert sum(seen) == SOLVED["unet_calls"](3, 5, guidance)


def test_noise_exercises_agree_with_the_library():
    linear = NoiseSchedule("linear")
    x0, eps, more = torch.randn(3, 4, 2, dtype=torch.float64).unbind()
    x_s = q_sample(linear, x0, 200, eps)
    back = SOLVED["recover_x0"](x_s, 200, eps, linear.alpha_bar)
    assert torch.allclose(back, x0)
    x_t = SOLVED["jump"](x_s, 200, 201, more, linear.alpha_bar)
    beta = linear.beta[201]
    assert torch.allclose(x_t, (1 - beta) ** 0.5 * x_s + beta**0.5 * more)  # DDPM eq. 2
    t = SOLVED["first_below"](1.0, linear.alpha_bar)
    assert linear.snr[t] < 1 <= linear.snr[t - 1]
    assert t == 260


def test_point_exercises_agree_with_the_library():
    linear = NoiseSchedule("linear")
    x0, eps = torch.randn(2, 4, 2, dtype=torch.float64).unbind()
    t = torch.tensor([1, 300, 600, 1000])

    def model(x_t, t, context=None):
        return torch.cos(x_t) + t[:, None] / 1000

    theirs = diffusion_loss(model, linear, x0, t, eps, parameterisation="v")
    assert torch.allclose(SOLVED["v_loss"](model, x0, t, eps, linear.alpha_bar), theirs)

    ab_t, ab_s = linear.alpha_bar[700].item(), linear.alpha_bar[400].item()
    x_t = q_sample(linear, x0, 700, eps)
    seen = Prediction(700, x0, eps)
    x_s = samplers.ddim(linear, x_t, 400, [seen], None, torch.randn_like)
    assert torch.allclose(SOLVED["ddim_back"](x_s, eps, ab_s, ab_t), x_t)

    # one clean point: x_t is Gaussian around sqrt(ab) x0, and its slope is autograd's
    x_t.requires_grad_()
    mean, variance = ab_t**0.5 * x0, 1 - ab_t
    (-((x_t - mean) ** 2).sum() / (2 * variance)).backward()
    assert torch.allclose(SOLVED["score"](x_t.detach(), x0, ab_t), x_t.grad)


def test_pixel_exercises_agree_with_the_library_and_torch():
    schedule, t = NoiseSchedule(), torch.tensor([1, 200, 500, 999])
    theirs = loss_weight(schedule, t, "v", 5.0)
    assert torch.allclose(SOLVED["snr_weight"](t, schedule.alpha_bar, 5.0), theirs)

    average, decay = torch.nn.Linear(1, 1, bias=False), 0.8
    average.weight.data.zero_()
    for k in range(6, -1, -1):  # seven steps; that of k steps ago had the weight 10^k
        update_ema(average, linear_of(10.0**k), decay)
    shares = [SOLVED["average_share"](k, decay) for k in range(7)]
    found = sum(share * 10.0**k for k, share in enumerate(shares))
    assert found == pytest.approx(average.weight.item())

    conv, x = torch.nn.Conv2d(6, 10, 3, padding=1), torch.randn(1, 6, 8, 12)
    with FlopCounterMode(display=False) as counter:
        conv(x)
    assert SOLVED["conv_flop"](6, 10, 3, 8, 12) == counter.get_total_flops()


def linear_of(weight):
    linear = torch.nn.Linear(1, 1, bias=False)
    linear.weight.data.fill_(weight)
    return linear


def test_latent_exercises_agree_with_the_library_and_torch():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)

        def attend(self, h):
            q = h.flatten(2).transpose(1, 2)[:, None]
            return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    def cost(side, what):
        return flop(Layer(), lambda layer: what(layer, torch.randn(1, 4, side, side)))

    for f in (2, 4):
        ratios = [
            cost(16, what) / cost(16 // f, what)
            for what in (lambda layer, h: layer.conv(h), Layer.attend)
        ]
        assert tuple(SOLVED["cheaper"](f)) == tuple(ratios)

    pipe = small_pipeline()
    first = next(pipe.denoise(2, steps=3))
    v_hat = pipe.unet(first.z_t, torch.full((2,), first.t))
    ab = pipe.schedule.alpha_bar[first.t].item()
    shown = SOLVED["decoded_guess"](pipe.autoencoder.decode, first.z_t, v_hat, ab)
    assert torch.allclose(shown, pipe.decode(first.z0_hat), atol=1e-5)

    n = SOLVED["break_even"](7.0, 1.5, 40.0)
    assert n * 7.0 >= 40.0 + n * 1.5
    assert (n - 1) * 7.0 < 40.0 + (n - 1) * 1.5


def test_unet_exercises_agree_with_torch():
    h = torch.randn(2, 12, 5, 6, dtype=torch.float64)
    for groups in (1, 3, 12):
        theirs = torch.nn.functional.group_norm(h, groups)
        assert torch.allclose(SOLVED["group_norm"](h, groups), theirs)
    theirs = torch.nn.functional.interpolate(h, scale_factor=2, mode="nearest")
    assert torch.equal(SOLVED["upsample"](h), theirs)


@pytest.mark.parametrize(("channels", "blocks"), [((8, 16), 1), ((8, 8, 24), 2)])
def test_skip_channels_are_those_that_the_unet_takes_up_again(channels, blocks):
    from ldm_edu import UNet, UNetConfig

    attention = (False,) * len(channels)
    config = UNetConfig(3, 3, channels, blocks, attention, heads=1, groups=4)
    unet, taken, width = UNet(config), [], channels[-1]
    for level in unet.up:
        for res in level.res:
            taken.append(res.conv1.in_channels - width)  # h and the skip, side by side
            width = res.conv1.out_channels
    assert SOLVED["skip_channels"](channels, blocks) == taken[::-1]


def test_compression_exercises_agree_with_the_library():
    x, x_hat = (torch.rand(2, 3, 3, 8, 8, dtype=torch.float64) * 2 - 1).unbind()
    assert torch.allclose(SOLVED["psnr"](x, x_hat), metrics.psnr(x, x_hat))
    mean, logvar = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64).unbind()
    whole = DiagonalGaussian(mean, logvar).kl().mean()
    assert torch.isclose(SOLVED["channel_kl"](mean, logvar).sum(), whole)
    config = AutoencoderConfig()  # Stable Diffusion's: 512 x 512 pixels become 64 x 64 x 4
    fewer = SOLVED["fewer_times"](config.factor, config.latent_channels)
    assert fewer == 3 * 512**2 / (4 * 64**2)


def test_latent_space_exercises_agree_with_the_library():
    mean, std = 3 * torch.randn(6, 4, 2, 2) + 1, torch.rand(6, 4, 2, 2)
    _, theirs = measure_scale(LatentSet(mean, std), per_channel=False)
    assert torch.isclose(torch.as_tensor(SOLVED["latent_std"](mean, std)), theirs[0])
    schedule = NoiseSchedule()
    ratio = SOLVED["unscaled_snr"](300, 2.0, schedule.alpha_bar)
    x = 2 * torch.randn(200_000, dtype=torch.float64)
    noise = q_sample(schedule, 0 * x[None], 300, torch.randn_like(x)[None])
    signal = q_sample(schedule, x[None], 300, 0 * x[None])
    assert torch.isclose(ratio, signal.var() / noise.var(), rtol=0.03)
    a, b = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64).unbind()
    for share in (0.0, 0.3, 1.0):
        theirs = slerp(a, b, torch.tensor([share]))
        assert torch.allclose(SOLVED["slerp"](a, b, share), theirs)


def test_step_exercises_agree_with_the_library():
    schedule, draw = NoiseSchedule(), torch.randn_like
    x_t, x0 = torch.randn(2, 4, 2, dtype=torch.float64).unbind()
    u, t, s = 800, 700, 550
    (alpha_u, sigma_u), (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (schedule.alpha_bar[k].item() ** 0.5, (1 - schedule.alpha_bar[k].item()) ** 0.5)
        for k in (u, t, s)
    )
    eps = (x_t - alpha_t * x0) / sigma_t
    lambda_t, lambda_s = math.log(alpha_t / sigma_t), math.log(alpha_s / sigma_s)
    theirs = samplers.ddim(schedule, x_t, s, [Prediction(t, x0, eps)], None, draw)
    assert torch.allclose(SOLVED["lambda_step"](x_t, x0, lambda_t, lambda_s), theirs)

    r_u, r_t, r_s = sigma_u / alpha_u, sigma_t / alpha_t, sigma_s / alpha_s
    slope = SOLVED["slope_ahead"](5 - 2 * r_u, 5 - 2 * r_t, r_u, r_t, r_s)  # on a line
    assert slope == pytest.approx(5 - (r_t + r_s))
    # steps of one length: the two weights of PLMS
    before = torch.randn_like(eps)
    history = [Prediction(u, None, before), Prediction(t, x0, eps)]
    theirs = samplers.plms(schedule, x_t, s, history, None, draw)
    slope = SOLVED["slope_ahead"](before, eps, 3.0, 2.0, 1.0)
    ours = alpha_s * (x_t / alpha_t + (r_s - r_t) * slope)
    assert torch.allclose(ours, theirs)

    rates = [SOLVED["order"](n, 3 * n, 7 / n**p, 7 / (3 * n) ** p) for n, p in ((5, 1), (8, 2))]
    assert rates == pytest.approx([1, 2])


def test_condition_exercises_agree_with_the_library():
    attention = Attention(8, heads=1, context_dim=5)
    tokens, context = torch.randn(1, 12, 8), torch.randn(1, 3, 5)
    q, k = attention.to_q(tokens)[0], attention.to_k(context)[0]
    theirs = attention_weights(attention, tokens, context)[0, 0]  # (12, 3)
    for word in range(3):
        found = SOLVED["word_map"](q, k, word, 4)
        torch.testing.assert_close(found.flatten(), theirs[:, word])

    ids, u = torch.arange(1, 13).view(3, 4), torch.tensor([0.05, 0.1, 0.7])
    emptied = SOLVED["drop_captions"](ids, u, 0.1)  # as `stages.denoiser_task` does
    assert torch.equal(emptied, ids.where(u[:, None] >= 0.1, WordTokenizer.end))

    pipe = small_pipeline(words=True)
    prompts, nothing = pipe.embed(["red circle", "blue square"]), pipe.embed([""] * 2)
    z_t, t = pipe.noise(2), torch.full((2,), 70)
    theirs = pipe.predictor(2, ["red circle", "blue square"], 3.5)(z_t, 70)
    with torch.no_grad():
        v_hat = SOLVED["guided"](pipe.unet, z_t, t, prompts, nothing, 3.5)
    z0_hat, _ = to_z0_eps(pipe.schedule, z_t, 70, v_hat, "v")
    torch.testing.assert_close(z0_hat, theirs.z0_hat)


def test_word_exercises_agree_with_the_library():
    tokenizer = WordTokenizer(["blue", "circle", "red"], length=5)
    for caption in ("a red circle", "", "red red blue circle"):
        row = SOLVED["tokenize"](caption, tokenizer.ids, tokenizer.length)
        assert row == tokenizer([caption])[0].tolist()

    attention = Attention(8, heads=1, causal=True)
    tokens = torch.randn(1, 6, 8)
    scores = attention.to_q(tokens) @ attention.to_k(tokens).mT / 8**0.5
    mixed = SOLVED["causal_weights"](scores[0]) @ attention.to_v(tokens)
    torch.testing.assert_close(attention.to_out(mixed), attention(tokens))

    pipe, seen = small_pipeline(), []
    pipe.unet.register_forward_pre_hook(lambda unet, given: seen.append(given[1][0].item()))
    pipe.vary(images(1), strength=0.55, steps=9)
    assert SOLVED["levels_left"](0.55, pipe.timesteps(9)) == seen

    schedule, z0, z_t, eps = NoiseSchedule(), *torch.randn(3, 2, 4, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    found = SOLVED["blend"](z_t, z0, mask, eps, schedule.alpha_bar[300].item())
    known = q_sample(schedule, z0, 300, eps)
    torch.testing.assert_close(found, torch.where(mask > 0, z_t, known))
