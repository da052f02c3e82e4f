"""Whole sampling loops against diffusers, which counts levels from 0: our t is its t + 1.

diffusers keeps its tables in float32, so they are replaced by float64 ones, computed here from
the definition. What is left to compare are the algorithms: they agree to rounding.
"""

from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from helpers import normal

from ldm_edu.samplers import ddim, ddpm, dpmpp, heun, plms
from ldm_edu.sampling import denoise, predictor
from ldm_edu.schedule import NoiseSchedule

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # theirs, of NumPy 2
]

ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
TRAILING, LEADING = ("trailing", 0, 0), ("leading", 0, 0)
MOVED, SD = ("leading", 1, 0), ("leading", 1, 1)  # spacing, offset, final


def tables(kind):
    start, end = ENDS[kind]
    if kind == "linear":
        betas = np.linspace(start, end, 1000)
    else:
        betas = np.linspace(start**0.5, end**0.5, 1000) ** 2
    return torch.from_numpy(betas), torch.from_numpy(np.cumprod(1 - betas))


def make(cls, kind, steps, parameterisation="eps", **config):
    """A scheduler of diffusers with `steps` (or levels) set and its tables in float64."""
    start, end = ENDS[kind]
    theirs = cls(
        beta_start=start,
        beta_end=end,
        beta_schedule=kind,
        prediction_type=PREDICTION[parameterisation],
        **config,
    )
    betas, alphas_cumprod = tables(kind)
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = betas, 1 - betas, alphas_cumprod
    if hasattr(theirs, "final_alpha_cumprod"):
        clean = torch.ones((), dtype=torch.float64)
        theirs.final_alpha_cumprod = clean if config["set_alpha_to_one"] else alphas_cumprod[0]
    if hasattr(theirs, "one"):
        theirs.one = torch.ones((), dtype=torch.float64)
    if isinstance(steps, list):
        theirs.set_timesteps(timesteps=[t - 1 for t in steps])
    else:
        theirs.set_timesteps(steps)
    if hasattr(theirs, "sigmas"):
        sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
        last = sigmas[:1] if config.get("final_sigmas_type") == "sigma_min" else sigmas[:1] * 0
        expected = torch.cat([sigmas[theirs.timesteps.long()], last])
        if cls is HeunDiscreteScheduler:  # every level but the first stands twice
            expected = torch.cat([expected[:-1], last])
        torch.testing.assert_close(theirs.sigmas.double(), expected, rtol=1e-4, atol=1e-5)
        theirs.sigmas = expected
    return theirs


def model(z_t, t, context=None):
    """Depends on z and on t, and on neither in a straight line; stays bounded."""
    return torch.sin(1.3 * z_t + t.view(-1, 1) / 170) + 0.2 * z_t.roll(1, -1)


def ask(z_t, t):
    """The model as diffusers asks it, counting from 0."""
    return model(z_t, torch.full((len(z_t),), int(t) + 1))


def ours(rule, kind, levels, final, parameterisation="eps", seed=None):
    schedule = NoiseSchedule(kind)
    generator = torch.Generator().manual_seed(seed or 0)

    def randn(like):
        assert seed is not None
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    predict = predictor(model, schedule, parameterisation)
    *_, last = denoise(predict, schedule, normal(3, 5), rule, levels, randn, final)
    assert last.t == final
    return last.z_t


def theirs_loop(theirs, z, **options):
    for t in theirs.timesteps:
        z = theirs.step(ask(theirs.scale_model_input(z, t), t), t, z, **options).prev_sample
    return z


def assert_equal(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol * max(1.0, b.abs().max().item()))


# ---- the schedule


@pytest.mark.parametrize("kind", ENDS)
def test_alpha_bar_equals_diffusers_table(kind):
    start, end = ENDS[kind]
    table = DDPMScheduler(1000, start, end, kind).alphas_cumprod.double()
    alpha_bar = NoiseSchedule(kind).alpha_bar
    torch.testing.assert_close(alpha_bar[1:], table, rtol=2e-5, atol=0)  # float32
    torch.testing.assert_close(alpha_bar[1:], tables(kind)[1], rtol=1e-12, atol=0)


def test_the_cosine_equals_diffusers_table():
    table = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    torch.testing.assert_close(NoiseSchedule().alpha_bar[1:], table, rtol=1e-4, atol=0)


# ---- samplers


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("parameterisation", PREDICTION)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    ("grid", "steps"),
    [
        *((TRAILING, steps) for steps in (1, 10, 250)),
        *((LEADING, steps) for steps in (10, 37)),
        *((SD, steps) for steps in (1, 10, 50)),
        (MOVED, 25),
    ],
)
def test_ddim(kind, parameterisation, eta, grid, steps):
    """Trailing with steps that divide T: else diffusers lands on levels it does not visit."""
    spacing, offset, final = grid
    levels = NoiseSchedule(kind).timesteps(steps, spacing, offset)
    theirs = make(
        DDIMScheduler,
        kind,
        steps,
        parameterisation,
        clip_sample=False,
        set_alpha_to_one=final == 0,
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    assert [t + 1 for t in theirs.timesteps.tolist()] == levels
    noise = torch.Generator().manual_seed(4)
    z = theirs_loop(theirs, normal(3, 5), eta=eta, generator=noise)
    assert_equal(ours(partial(ddim, eta=eta), kind, levels, final, parameterisation, 4), z)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("parameterisation", PREDICTION)
@pytest.mark.parametrize(
    ("spacing", "steps"),
    [("leading", 10), ("leading", 37), ("leading", 1000), ("trailing", 10), ("trailing", 27)],
)
def test_ddpm(kind, parameterisation, spacing, steps):
    theirs = make(
        DDPMScheduler,
        kind,
        steps,
        parameterisation,
        clip_sample=False,
        timestep_spacing=spacing,
    )
    levels = NoiseSchedule(kind).timesteps(steps, spacing)
    assert [t + 1 for t in theirs.timesteps.tolist()] == levels
    z = theirs_loop(theirs, normal(3, 5), generator=torch.Generator().manual_seed(4))
    # where their last t is not 0, they add noise of variance 1e-20 in the last step
    atol = 1e-12 if spacing == "leading" else 1e-9
    assert_equal(ours(ddpm, kind, levels, 0, parameterisation, 4), z, atol)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize(
    ("grid", "steps"),
    [(SD, steps) for steps in (2, 3, 4, 5, 10, 50, 333)]
    + [(TRAILING, steps) for steps in (1, 2, 4, 10, 50)]
    + [(LEADING, 1), (LEADING, 37), (MOVED, 20)],
)
def test_plms(kind, grid, steps):
    spacing, offset, final = grid
    theirs = make(
        PNDMScheduler,
        kind,
        steps,
        skip_prk_steps=True,
        set_alpha_to_one=final == 0,
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    levels = NoiseSchedule(kind).timesteps(steps, spacing, offset)
    visited = [*levels[:2], *levels[1:]]  # the second level twice
    assert [t + 1 for t in theirs.timesteps.tolist()] == visited
    assert_equal(ours(plms, kind, levels, final), theirs_loop(theirs, normal(3, 5)))


def test_plms_asks_the_model_at_the_levels_that_stable_diffusion_does():
    """diffusers' 11 calls for 10 steps: 901, 801, 801, 701, ..., 1."""
    schedule, asked = NoiseSchedule("scaled_linear"), []

    def listening(z_t, t, context):
        asked.append(t[0].item() - 1)
        return 0.1 * z_t

    predict = predictor(listening, schedule, "eps")
    levels = schedule.timesteps(10, "leading", 1)
    list(denoise(predict, schedule, normal(1, 2), plms, levels, final=1))
    assert asked == [901, 801, *range(801, 0, -100)]


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("parameterisation", PREDICTION)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("grid", ["linspace", "leading", "trailing", SD, LEADING, TRAILING])
def test_dpmpp(kind, parameterisation, steps, grid):
    """On the grids that diffusers makes for it, and on ours."""
    final = grid[2] if isinstance(grid, tuple) else 0
    config = {"final_sigmas_type": "sigma_min" if final else "zero"}
    config["lower_order_final"] = not final
    if isinstance(grid, tuple):
        levels = NoiseSchedule(kind).timesteps(steps, *grid[:2])
        theirs = make(DPMSolverMultistepScheduler, kind, levels, parameterisation, **config)
    else:
        config |= {"timestep_spacing": grid, "steps_offset": int(grid == "leading")}
        theirs = make(DPMSolverMultistepScheduler, kind, steps, parameterisation, **config)
        levels = [t + 1 for t in theirs.timesteps.tolist()]
    with mock.patch.object(torch, "float32", torch.float64):  # its step() rounds to float32
        z = theirs_loop(theirs, normal(3, 5))
    assert_equal(ours(dpmpp, kind, levels, final, parameterisation), z)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("parameterisation", PREDICTION)
@pytest.mark.parametrize("steps", [1, 2, 10, 37])
@pytest.mark.parametrize("grid", [TRAILING, LEADING, MOVED])
def test_heun(kind, parameterisation, steps, grid):
    levels = NoiseSchedule(kind).timesteps(steps, *grid[:2])
    theirs = make(
        HeunDiscreteScheduler,
        kind,
        steps,
        parameterisation,
        timestep_spacing=grid[0],
        steps_offset=grid[1],
    )
    twice = [t + 1 for t in theirs.timesteps.long().tolist()]
    if grid is not TRAILING or 1000 % steps == 0:
        assert twice == [levels[0], *(t for t in levels[1:] for _ in "12")]
    else:  # they round the other way at some levels
        levels = twice[:1] + twice[1::2]
    alpha_T = tables(kind)[1][levels[0] - 1].sqrt()
    z = theirs_loop(theirs, normal(3, 5) / alpha_T)  # it works on z / alpha
    assert_equal(ours(heun, kind, levels, 0, parameterisation), z)


# ---- sums that diffusers' own tests and runs print, on their dummy data


def sum_of(rule, schedule, levels, final=0, parameterisation="eps", clip=False):
    z_T = torch.arange(768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2) / 768

    def dummy(z_t, t, context):
        return z_t * ((t - 1) / t).view(-1, 1, 1, 1)

    asked = predictor(dummy, schedule, parameterisation)

    def clipped(z_t, t):
        prediction = asked(z_t, t)
        return prediction._replace(z0_hat=prediction.z0_hat.clamp(-1, 1))

    predict = clipped if clip else asked
    if levels[-1] == levels[-2]:  # a loop has to fall: the step that does not is taken by hand
        *_, last = denoise(predict, schedule, z_T, rule, levels[:-2], final=levels[-1])
        z_t = rule(schedule, last.z_t, last.t, [predict(last.z_t, last.t)], predict, None)
        return z_t.abs().sum().item()
    generator = torch.Generator().manual_seed(0)

    def randn(like):
        return torch.randn(like.shape, generator=generator)

    *_, last = denoise(predict, schedule, z_T, rule, levels, randn, final)
    return last.z_t.abs().sum().item()


def test_published_sums():
    linear, scaled = NoiseSchedule("linear"), NoiseSchedule("scaled_linear")
    ten = linear.timesteps(10, "leading")
    assert sum_of(ddim, linear, ten, clip=True) == pytest.approx(172.0067, abs=2e-3)
    v = sum_of(ddim, linear, ten, parameterisation="v", clip=True)
    assert v == pytest.approx(52.5302, abs=1e-3)
    every = linear.timesteps(1000)
    assert sum_of(ddpm, linear, every, clip=True) == pytest.approx(258.9606, abs=1e-2)
    v = sum_of(ddpm, linear, every, parameterisation="v", clip=True)
    assert v == pytest.approx(202.0296, abs=1e-2)
    late = NoiseSchedule("linear", beta_start=0.01)
    assert sum_of(ddim, late, ten, clip=True) == pytest.approx(149.8295, abs=1e-3)
    # set_alpha_to_one False from their t = 0: a last step that stays on our level 1
    stays = [*ten, 1]
    assert sum_of(ddim, late, stays, clip=True) == pytest.approx(149.0784, abs=1e-3)
    sd = scaled.timesteps(50, "leading", 1)
    assert sum_of(ddim, scaled, sd, 1) == pytest.approx(197.97902, abs=1e-3)
    assert sum_of(plms, scaled, sd, 1) == pytest.approx(203.49913, abs=1e-3)
    # their "linspace": T - 1 down in equal steps, the last left out, and clean at the end
    for schedule, steps, total in ((linear, 10, 185.01135), (scaled, 20, 190.49850)):
        levels = (np.linspace(999, 0, steps + 1)[:-1].round() + 1).astype(int).tolist()
        assert sum_of(dpmpp, schedule, levels) == pytest.approx(total, abs=1e-3)
