"""The joined parts: what a user saves, loads and samples."""

import re
from dataclasses import replace
from itertools import combinations, islice
from types import GeneratorType

import pytest
import torch
from helpers import AE, NET, SAMPLERS, images, small_pipeline, some_gpu

from ldm_edu import checkpoint
from ldm_edu.autoencoder import Autoencoder
from ldm_edu.diffusion import to_z0_eps
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.pipeline import LatentDiffusion, pick_device
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.unet import UNet, UNetConfig

SETTINGS = [*({"sampler": name} for name in SAMPLERS), {"sampler": "ddim", "eta": 0.7}]


@pytest.fixture(scope="module")
def pipe():
    return small_pipeline()


# ---- save and load


@pytest.mark.parametrize("parameterisation", ["v", "eps"])
def test_a_loaded_pipeline_is_the_saved_one_bit_for_bit(tmp_path, parameterisation):
    saved = small_pipeline(3, parameterisation, NoiseSchedule("linear", 50, 1e-4, 0.1))
    saved.save(tmp_path / "pipe", data="shapes", epochs=3)
    loaded = LatentDiffusion.load(tmp_path / "pipe", device="cpu")
    for part in ("autoencoder", "unet"):
        a, b = (getattr(p, part) for p in (saved, loaded))
        assert a.config == b.config and not b.training
        for (name, value), (other, again) in zip(
            a.state_dict().items(), b.state_dict().items(), strict=True
        ):
            assert name == other and torch.equal(value, again)
    assert (loaded.schedule, loaded.parameterisation) == (saved.schedule, parameterisation)
    assert loaded.image_size == 16
    assert torch.equal(loaded.sample(2, steps=3), saved.sample(2, steps=3))
    x = images(3)
    assert torch.equal(loaded.encode(x), saved.encode(x))
    notes = checkpoint.read_config(tmp_path / "pipe")["notes"]
    assert notes == {"data": "shapes", "epochs": 3}


def size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.parametrize("words", [False, True])
def test_half_the_size_comes_back_as_float32(tmp_path, words):
    saved = small_pipeline(words=words)
    for half in (False, True):
        saved.save(tmp_path / str(half), half=half, data="shapes")
    _, tensors = checkpoint.load(tmp_path / "True")
    assert {v.dtype for part in tensors.values() for v in part.values()} == {torch.float16}
    loaded = LatentDiffusion.load(tmp_path / "True", device="cpu")
    for part in ("autoencoder", "unet", *(["text_encoder"] if words else [])):
        pair = [getattr(pipe, part).state_dict() for pipe in (saved, loaded)]
        for name, value in pair[0].items():
            assert pair[1][name].dtype == torch.float32
            assert torch.equal(pair[1][name], value.half().float())
    z = saved.noise(4)
    levels = (saved.decode(z) - loaded.decode(z)).abs().mean() * 127.5
    assert 0 < levels < 1
    assert checkpoint.read_config(tmp_path / "True")["notes"] == {"data": "shapes"}


def test_half_the_size_is_about_half(tmp_path):
    """Weights, not names, fill the files of a model of any use."""
    big = Autoencoder(replace(AE, channels=(64, 64)))
    pipe = LatentDiffusion(big, UNet(NET), NoiseSchedule(), image_size=16)
    for half in (False, True):
        pipe.save(tmp_path / str(half), half=half)
    assert 0.5 < size(tmp_path / "True") / size(tmp_path / "False") < 0.6


def test_weights_that_half_cannot_hold_are_refused(tmp_path):
    pipe = small_pipeline()
    pipe.unet.conv_in.weight.data[0, 0, 0, 0] = 7e4
    with pytest.raises(InputError, match=r"unet's conv_in\.weight reaches 7e\+04.*float32"):
        pipe.save(tmp_path / "pipe", half=True)
    assert not (tmp_path / "pipe").exists()
    pipe.save(tmp_path / "pipe")


def test_another_checkpoint_is_refused(tmp_path):
    checkpoint.save(tmp_path / "other", {"format": "a cake"}, {})
    with pytest.raises(CheckpointError, match=r"holds a cake, not ldm_edu\.LatentDiffusion"):
        LatentDiffusion.load(tmp_path / "other")
    with pytest.raises(CheckpointError):
        LatentDiffusion.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda c: c.pop("schedule"), "lacks 'schedule'"),
        (lambda c: c["schedule"].update(T=0), "T must be an integer of at least 1, found 0"),
        (lambda c: c["unet"].update(colour=3), "unexpected keyword argument 'colour'"),
        (lambda c: c["unet"].update(groups=0), "groups must be at least 1, found 0"),
        (lambda c: c["unet"].update(channels=3), "int"),
        (lambda c: c.update(unet=[1]), "mapping"),
        (lambda c: c["autoencoder"].pop("channels"), "autoencoder: checkpoint is for another"),
        (lambda c: c.update(image_size=18), "multiple of f = 4, found 18"),
        (lambda c: c.update(parameterisation="epsilon"), "found 'epsilon'"),
    ],
)
def test_settings_that_fit_no_class_are_a_checkpoint_error(pipe, tmp_path, edit, found):
    pipe.save(tmp_path / "pipe")
    config, tensors = checkpoint.load(tmp_path / "pipe")
    edit(config)
    checkpoint.save(tmp_path / "edited", config, tensors)
    with pytest.raises(CheckpointError, match=re.escape(found)):
        LatentDiffusion.load(tmp_path / "edited", device="cpu")


def test_a_checkpoint_without_a_part_is_refused(pipe, tmp_path):
    pipe.save(tmp_path / "pipe")
    config, tensors = checkpoint.load(tmp_path / "pipe")
    del tensors["unet"]
    checkpoint.save(tmp_path / "edited", config, tensors)
    with pytest.raises(CheckpointError, match="lacks 'unet'"):
        LatentDiffusion.load(tmp_path / "edited", device="cpu")


# ---- sampling


@pytest.mark.parametrize("options", SETTINGS)
def test_a_seed_fixes_the_samples(pipe, options):
    first = pipe.sample(2, steps=4, seed=1, **options)
    torch.randn(5)  # the global generator has no say
    before = torch.get_rng_state()
    assert torch.equal(pipe.sample(2, steps=4, seed=1, **options), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(pipe.sample(2, steps=4, seed=2, **options), first)
    assert not torch.equal(first[0], first[1])
    assert first.shape == (2, 3, 16, 16) and first.dtype == torch.float32
    assert first.device.type == "cpu" and not first.requires_grad


@pytest.mark.parametrize("options", SETTINGS)
def test_an_image_depends_on_its_seed_and_place_not_on_how_many_there_are(pipe, options):
    many = pipe.sample(5, steps=4, seed=7, **options)
    for n in (1, 2):
        few = pipe.sample(n, steps=4, seed=7, **options)
        torch.testing.assert_close(few, many[:n], rtol=1e-4, atol=1e-4)


def test_starting_noise_depends_on_seed_and_place_and_is_normal(pipe):
    z_T = pipe.noise(2000, seed=3)
    assert z_T.shape == (2000, 3, 4, 4) and torch.equal(pipe.noise(5, seed=3), z_T[:5])
    assert not torch.equal(pipe.noise(5, seed=4), z_T[:5])
    assert len({tuple(z.flatten()[:4].tolist()) for z in z_T}) == 2000
    assert z_T.mean().abs() < 0.02 and (z_T.var() - 1).abs() < 0.03


def test_noise_within_the_loop_is_neither_repeated_nor_the_starting_noise(pipe):
    """Every (image, step) draws anew: no two of these latents share their noise."""
    start = pipe.noise(3, seed=0)
    z = [s.z_t for s in pipe.denoise(3, sampler="ddpm", steps=4, z_T=torch.zeros(3, 3, 4, 4))]
    means = list(pipe.denoise(3, sampler="ddim", steps=4, z_T=torch.zeros(3, 3, 4, 4)))
    drawn = torch.cat([z[1] - means[1].z_t, start])
    drawn = drawn.flatten(1) - drawn.flatten(1).mean(1, keepdim=True)
    correlation = torch.nn.functional.normalize(drawn, dim=1)
    correlation = correlation @ correlation.T - torch.eye(6)
    assert correlation.abs().max() < 0.7


@pytest.mark.parametrize("parameterisation", ["v", "eps", "x0"])
def test_ddim_with_eta_1_is_ddpm(parameterisation):
    pipe = small_pipeline(1, parameterisation)
    a = pipe.sample(2, sampler="ddim", eta=1.0, steps=5)
    torch.testing.assert_close(a, pipe.sample(2, sampler="ddpm", steps=5), rtol=1e-4, atol=1e-4)


def test_z_T_is_where_sampling_starts(pipe):
    z_T = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    states = list(pipe.denoise(2, steps=3, z_T=z_T))
    assert torch.equal(states[0].z_t, z_T)
    assert torch.equal(pipe.sample(2, steps=3, z_T=z_T), pipe.decode(states[-1].z_t))
    assert not torch.equal(pipe.sample(2, steps=3, z_T=z_T), pipe.sample(2, steps=3, z_T=-z_T))
    assert torch.equal(
        pipe.sample(2, steps=3, z_T=pipe.noise(2, 9)), pipe.sample(2, steps=3, seed=9)
    )


def test_a_larger_z_T_makes_a_larger_image(pipe):
    assert pipe.sample(1, steps=2, z_T=torch.randn(1, 3, 6, 8)).shape == (1, 3, 24, 32)


def test_denoise_yields_every_step_and_what_the_model_said(pipe):
    loop = pipe.denoise(2, steps=4)
    assert isinstance(loop, GeneratorType)
    states = list(loop)
    assert [s.t for s in states] == [100, 75, 50, 25, 0]
    for state in states[:-1]:
        with torch.no_grad():
            prediction = pipe.unet(state.z_t, torch.full((2,), state.t))
        z0_hat, _ = to_z0_eps(pipe.schedule, state.z_t, state.t, prediction, "v")
        torch.testing.assert_close(state.z0_hat, z0_hat)
    torch.testing.assert_close(states[-1].z_t, states[-2].z0_hat)


def test_defaults_are_dpmpp_of_20_steps_from_seed_0(pipe):
    explicit = pipe.denoise(1, sampler="dpm++", steps=20, eta=0.0, seed=0)
    for a, b in islice(zip(pipe.denoise(), explicit, strict=True), 4):
        assert a.t == b.t and torch.equal(a.z_t, b.z_t)


def test_every_name_is_its_own_rule(pipe):
    last = [[*pipe.denoise(1, sampler=name, steps=6)][-1].z_t for name in SAMPLERS]
    for a, b in combinations(last, 2):
        assert not torch.allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "heun", "plms"])
def test_every_sampler_finds_data_of_unit_variance_from_the_cosines_pure_noise(sampler):
    """N(0, 1) needs no moving at all: the exact denoiser maps every z_T to itself."""
    pipe = small_pipeline()
    pipe.unet.forward = lambda z, t, context=None: torch.zeros_like(z)  # v = 0
    pipe.schedule = NoiseSchedule("cosine")
    z_T = pipe.noise(4)
    errors = []
    for steps in (20, 40):
        *_, last = pipe.denoise(4, sampler=sampler, steps=steps, z_T=z_T)
        errors.append((last.z_t - z_T).abs().max().item())
    assert errors[0] < (1.0 if sampler == "ddim" else 0.05)
    assert errors[1] < errors[0] / (1.8 if sampler == "ddim" else 2.2)


# ---- the grid


OWN_GRIDS = (
    (Grid("leading", offset=1, final=1), [77, 52, 27, 2, 1]),  # Stable Diffusion's
    (Grid(lowest=20), [100, 80, 60, 40, 0]),  # from 40, the last step goes on to clean
)


@pytest.mark.parametrize(("grid", "visited"), OWN_GRIDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_pipeline_samples_on_its_own_grid_and_keeps_it(tmp_path, sampler, grid, visited):
    saved = small_pipeline()
    saved.grid = grid
    saved.save(tmp_path / "pipe")
    loaded = LatentDiffusion.load(tmp_path / "pipe", device="cpu")
    assert loaded.grid == saved.grid
    states = list(loaded.denoise(2, sampler=sampler, steps=4))
    assert [s.t for s in states] == visited
    x = loaded.sample(2, sampler=sampler, steps=4)
    assert torch.equal(x, saved.sample(2, sampler=sampler, steps=4))
    assert torch.equal(x, loaded.decode(states[-1].z_t))


def test_the_grid_is_trailing_down_to_clean_unless_told_otherwise(pipe):
    assert pipe.grid == Grid("trailing", offset=0, final=0)
    grid, schedule = Grid("leading", offset=1), NoiseSchedule(T=9)
    moved = LatentDiffusion(Autoencoder(AE), UNet(NET), schedule, image_size=16, grid=grid)
    with pytest.raises(InputError, match="take fewer steps"):
        moved.sample(steps=9)


# ---- encode and decode


def test_encode_is_the_posteriors_mean_in_scaled_units(pipe):
    x = images(3)
    z, posterior = pipe.encode(x), pipe.autoencoder.encode(x)
    assert torch.equal(z, posterior.mean) and not z.requires_grad
    torch.testing.assert_close(
        pipe.decode(z), pipe.autoencoder.decode(posterior.mean).detach().clamp(-1, 1)
    )


def test_decoded_images_lie_within_minus_1_and_1_and_latents_are_not_clamped(pipe):
    z = 30 * pipe.noise(2)
    assert pipe.autoencoder.decode(z).abs().max() > 1
    x = pipe.decode(z)
    assert x.min() == -1 and x.max() == 1
    states = list(pipe.denoise(2, steps=3, z_T=z))
    assert torch.equal(states[0].z_t, z)
    assert max(s.z0_hat.abs().max().item() for s in states) > 5


def test_parts_are_put_in_evaluation_mode():
    pipe = small_pipeline()
    assert not pipe.autoencoder.training and not pipe.unet.training  # dropout would differ


def test_a_pipeline_in_float64_computes_in_float64(pipe):
    double = small_pipeline()
    double.unet.double()
    double.autoencoder.double()
    assert double.dtype == torch.float64 and double.noise(1).dtype == torch.float64
    assert next(iter(double.denoise(1, z_T=pipe.noise(1)))).z_t.dtype == torch.float64
    x = double.sample(1, steps=2)
    assert x.dtype == torch.float32 and double.encode(x).dtype == torch.float64
    torch.testing.assert_close(x, pipe.sample(1, steps=2), rtol=1e-3, atol=1e-3)


# ---- errors


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"n": 0}, "at least 1, found 0"),
        ({"n": 2.0}, "at least 1, found 2.0"),
        ({"n": None}, "at least 1, found None"),
        ({"prompt": 3}, "None, found int"),
        ({"guidance": float("nan")}, "finite number, found nan"),
        ({"guidance": "x"}, "finite number, found 'x'"),
        ({"z_T": [1.0]}, "must be tensors, found list"),
        ({"sampler": "euler"}, "'heun', 'plms'], found 'euler'"),
        ({"steps": 0}, "found 0"),
        ({"steps": 101}, "1 to T = 100, found 101"),
        ({"sampler": "ddim", "eta": 1.5}, "found 1.5"),
        ({"sampler": "ddim", "eta": -1}, "found -1"),
        ({"eta": 0.5}, "only the sampler 'ddim' takes an eta, found 0.5 for 'dpm++'"),
        ({"n": 2, "z_T": torch.zeros(1, 3, 4, 4)}, "(2, 3, 4, 4), found (1, 3, 4, 4)"),
        ({"n": 1, "z_T": torch.zeros(1, 4, 4, 4)}, "(1, 3, 4, 4), found (1, 4, 4, 4)"),
        ({"n": 1, "z_T": torch.zeros(1)}, "found (1,)"),
        ({"n": 1, "z_T": torch.zeros(1, 3, 4)}, "found (1, 3, 4)"),
        ({"n": 1, "z_T": torch.zeros(1, 3, 5, 4)}, "found (1, 3, 5, 4)"),
    ],
)
def test_options_that_cannot_be_are_refused(pipe, options, found):
    with pytest.raises(InputError, match=re.escape(found)):
        pipe.sample(**({"steps": 2} | options))


def test_parts_that_do_not_fit_are_refused():
    unet = UNet(UNetConfig(4, 3, channels=(8,), attention=(True,), groups=4))
    with pytest.raises(InputError, match=r"\(4, 3\) channels, .* has 3"):
        LatentDiffusion(Autoencoder(AE), unet, NoiseSchedule())


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"parameterisation": "epsilon"}, "'eps', 'x0' or 'v', found 'epsilon'"),
        ({"guidance": "x"}, "finite number, found 'x'"),
        ({"guidance": float("inf")}, "finite number, found inf"),
        ({"image_size": 20}, "latents of 5 x 5: the U-Net's 2 levels need a multiple of 2"),
        ({"grid": Grid(lowest=100)}, "from 0 to T - 1 = 99, found 100"),
        ({"grid": Grid(offset=1)}, "offset 1, leave {1..100}"),
        ({"grid": Grid("leading", lowest=5, final=6)}, "must be below 6, found 6"),
    ],
)
def test_settings_that_could_never_sample_are_refused(settings, found):
    parts = Autoencoder(AE), UNet(NET), NoiseSchedule(T=100)
    with pytest.raises(InputError, match=re.escape(found)):
        LatentDiffusion(*parts, **({"image_size": 16} | settings))


@pytest.mark.parametrize("task", ["encode", "vary", "inpaint"])
def test_images_must_lie_in_minus_1_to_1_or_near(pipe, task):
    hole = torch.zeros(2, 1, 16, 16)
    hole[..., 5:9, 5:9] = 1
    options = {"encode": {}, "vary": {"steps": 2}, "inpaint": {"mask": hole, "steps": 2}}[task]
    method = getattr(pipe, task)
    bytes_as_floats = (images() + 1) * 127.5
    with pytest.raises(InputError, match=r"in \[-1, 1\], found values from .* to 25\d"):
        method(bytes_as_floats, **options)
    x = images()
    x[1, 2, 3, 4] = float("nan")
    with pytest.raises(InputError, match="found values from nan"):
        method(x, **options)
    with pytest.raises(InputError, match="must be tensors, found list"):
        method(images().tolist(), **options)
    hard = images().sign()
    cubic = torch.nn.functional.interpolate(hard, (48, 48), mode="bicubic")[..., :16, :16]
    assert cubic.abs().max() > 1.5 and method(cubic, **options).isfinite().all()


def test_images_and_latents_of_other_shapes_are_refused(pipe):
    with pytest.raises(InputError, match=r"found \(1, 3, 15, 16\)"):
        pipe.encode(torch.zeros(1, 3, 15, 16))
    with pytest.raises(InputError, match="must be tensors, found list"):
        pipe.decode([0.0])
    with pytest.raises(InputError, match=r"found \(1, 2, 4, 4\)"):
        pipe.decode(torch.zeros(1, 2, 4, 4))


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="device 'abacus' is not available"):
        pick_device("abacus")


def test_every_task_runs_on_a_gpu_that_has_no_float64():
    pipe, x = small_pipeline(), torch.rand(2, 3, 16, 16)
    with some_gpu() as gpu:
        with torch.device(gpu):
            pipe.autoencoder, pipe.unet = Autoencoder(AE), UNet(NET)
        found = [pipe.sample(2, steps=3, sampler=sampler) for sampler in SAMPLERS]
        found.append(pipe.vary(x, steps=3))
        found.append(pipe.inpaint(x, torch.ones(2, 1, 16, 16), steps=3))
        found.append(pipe.interpolate(0, 1, 2, steps=3))
        assert all(y.shape == x.shape and y.device.type == "cpu" for y in found)


@pytest.mark.parametrize("image_size", [0, -16, 18])
def test_an_image_size_that_is_no_multiple_of_f_is_refused(image_size):
    with pytest.raises(InputError, match=f"found {image_size}"):
        LatentDiffusion(Autoencoder(AE), UNet(NET), NoiseSchedule(), image_size=image_size)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_would_be_another_ones_is_refused(pipe, seed):
    for draw in (pipe.noise, lambda n, seed: pipe.sample(n, seed=seed, steps=1)):
        with pytest.raises(InputError, match=f"- 1, found {seed}"):
            draw(1, seed=seed)
