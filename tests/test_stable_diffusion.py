"""Published weights give diffusers' numbers: from both layouts, for every method, and back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from helpers import filled
from published import ODD, PLAIN, PLAN, exact, save_compvis, state_dicts, theirs
from safetensors.torch import save_file

import ldm_edu
from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.errors import InputError, StorageError
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.stable_diffusion import compvis, load_stable_diffusion, save_stable_diffusion
from ldm_edu.stable_diffusion.key_map import key_map
from ldm_edu.stable_diffusion.published import GRID, SCHEDULE
from ldm_edu.stable_diffusion.settings import read_autoencoder, read_unet
from ldm_edu.stable_diffusion.tensors import StoredTensor
from ldm_edu.text import TextEncoder, TextEncoderConfig, WordTokenizer
from ldm_edu.unet import UNet, UNetConfig

pytestmark = pytest.mark.parity
SIZES = {"plain": PLAIN, "SD's plan": PLAN, "odd": ODD | {"text": {"heads": 4, "layers": 3}}}
PROMPTS = ["a red cat", "blue, circle!"]
FOLDERS = {"unet": "unet", "autoencoder": "vae", "text_encoder": "text_encoder"}


class Pair:
    """A folder, diffusers' pipeline of it in float64, and ours."""

    def __init__(self, folder, **sizes):
        self.folder = folder
        self.theirs = theirs(folder, **sizes).to(torch.float64)
        exact(self.theirs.scheduler)
        self.ours = load_stable_diffusion(folder, device="cpu", dtype=torch.float64)

    def use(self, sampler):
        if sampler == "ddim":
            config = {**self.theirs.scheduler.config, "clip_sample": False}
            return exact(DDIMScheduler.from_config(config))
        return self.theirs.scheduler


@pytest.fixture(scope="module", params=SIZES)
def pair(request, tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("sd") / "model", **SIZES[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("sd") / "model", **PLAIN)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def picture(pipe, n=2):
    side = pipe.image_size
    return draw(n, 3, side, side, seed=5).clamp(-1, 1)


def same(found, expected, most=1e-10):
    assert expected.std() > 0.005 and found.shape == expected.shape
    assert (found - expected).abs().max() < most * max(1, expected.abs().max())


# ---- the parts


def test_unet_counts_time_from_1(pair):
    z_t, context = draw(2, 4, 8, 8), draw(2, 77, 64, seed=1)
    for t in (1, 2, 500, 1000):
        with torch.no_grad():
            expected = pair.theirs.unet(z_t, t - 1, context).sample
            same(pair.ours.unet(z_t, torch.full((2,), t), context), expected)


def test_encode_and_decode(pair):
    x, z = picture(pair.ours), draw(2, 4, 8, 8)
    with torch.no_grad():
        posterior = pair.theirs.vae.encode(x).latent_dist
        same(pair.ours.encode(x), posterior.mean * 0.18215)
        same(pair.ours.autoencoder.encode(x).std, posterior.std * 0.18215)
        same(pair.ours.autoencoder.decode(z), pair.theirs.vae.decode(z / 0.18215).sample)


def test_ids_and_context(pair):
    captions = ["", *PROMPTS, "red " * 100]
    ids = pair.theirs.tokenizer(
        captions, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    assert torch.equal(pair.ours.tokenizer(captions), ids) and ids.shape == (4, 77)
    with torch.no_grad():
        same(pair.ours.embed(captions), pair.theirs.text_encoder(ids).last_hidden_state)


def test_settings_are_stable_diffusions(pair):
    ours = pair.ours
    assert ours.schedule == NoiseSchedule("scaled_linear", 1000, 0.00085, 0.012)
    assert (ours.parameterisation, ours.guidance) == ("eps", 7.5)
    assert ours.grid == Grid("leading", 1, 1)
    assert ours.image_size == 8 * ours.autoencoder.config.factor
    levels = [state.t for state in ours.denoise(steps=5, sampler="ddim")]
    assert levels == [802, 602, 402, 202, 2, 1]
    assert ours.autoencoder.latent_shift.tolist() == [0] * 4
    assert ours.autoencoder.latent_scale.tolist() == [0.18215] * 4
    assert {p.dtype for p in ours.unet.parameters()} == {torch.float64}
    assert not any(m.training for m in (ours.unet, ours.autoencoder, ours.text_encoder))


# ---- images


@pytest.mark.parametrize("sampler", ["plms", "ddim"])
@pytest.mark.parametrize(("steps", "guidance"), [(6, 7.5), (7, 1.0), (2, 3.0)])
def test_images_equal_those_of_diffusers(pair, sampler, steps, guidance):
    z_T, options = draw(2, 4, 8, 8), {"latents": draw(2, 4, 8, 8)}
    options |= {"num_inference_steps": steps, "guidance_scale": guidance}
    keep, pair.theirs.scheduler = pair.theirs.scheduler, pair.use(sampler)
    try:
        z0 = pair.theirs(PROMPTS, output_type="latent", **options).images
        x = pair.theirs(PROMPTS, output_type="pt", **options).images * 2 - 1
    finally:
        pair.theirs.scheduler = keep
    ours = {"prompt": PROMPTS, "guidance": guidance, "sampler": sampler, "steps": steps}
    *_, last = pair.ours.denoise(2, z_T=z_T, **ours)
    same(last.z_t, z0, 1e-9)
    found = pair.ours.sample(2, z_T=z_T, **ours)
    same(found.double(), x, 1e-6)
    assert found.dtype == torch.float32


def test_guidance_is_7_and_a_half_unless_said(plain):
    options = {"prompt": "a red cat", "steps": 3, "z_T": draw(1, 4, 8, 8), "sampler": "ddim"}
    assert torch.equal(plain.ours.sample(**options), plain.ours.sample(**options, guidance=7.5))
    assert not torch.equal(
        plain.ours.sample(**options), plain.ours.sample(**options, guidance=2.0)
    )


@pytest.mark.parametrize("strength", [0.3, 0.55, 1.0])
def test_vary_equals_image_to_image(pair, strength):
    pipe = StableDiffusionImg2ImgPipeline(
        **pair.theirs.components | {"scheduler": pair.use("ddim")},
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    x = picture(pair.ours)
    with torch.no_grad():  # theirs would draw from the posterior
        z0 = pair.theirs.vae.encode(x).latent_dist.mean * 0.18215
    generator = torch.Generator().manual_seed(3)
    expected = pipe(
        PROMPTS,
        image=z0,
        strength=strength,
        num_inference_steps=8,
        guidance_scale=4.0,
        generator=generator,
        output_type="pt",
    ).images
    noise = draw(*z0.shape, seed=3)
    found = pair.ours.vary(
        x, strength, prompt=PROMPTS, guidance=4.0, sampler="ddim", steps=8, noise=noise
    )
    same(found.double(), expected * 2 - 1, 1e-6)


def test_inpainting_for_published_weights(plain):
    x = picture(plain.ours).float()
    mask = torch.zeros_like(x[:, :1])
    mask[..., 3:11, 2:] = 1
    options = {"prompt": PROMPTS, "guidance": 3.0, "sampler": "plms", "steps": 3, "seed": 2}
    y, new = plain.ours.inpaint(x, mask, **options), mask.bool().expand_as(x)
    assert torch.equal(y[~new], x[~new]) and (y - x)[new].abs().max() > 0.05
    y = plain.ours.inpaint(x, torch.ones_like(mask), resample=1, **options)
    same(y, plain.ours.sample(2, **options), 1e-6)


def test_a_walk_through_published_weights(plain):
    options = {"prompt": "a red cat", "sampler": "plms", "steps": 3}
    walk = plain.ours.interpolate(2, 7, 3, **options)
    for image, seed in ((walk[:1], 2), (walk[2:], 7)):
        same(image, plain.ours.sample(1, seed=seed, **options), 1e-6)


# ---- CompVis' file


def compvis_names(pipe):
    """part -> diffusers' name -> CompVis', which tests/test_key_map.py proves."""
    names = {}
    for part, folder in FOLDERS.items():
        module = getattr(pipe, part)
        args = part, module.state_dict(), module.config
        ours = key_map(*args, "compvis")
        names[folder] = {v: ours[k] for k, v in key_map(*args, "diffusers").items()}
    return names


EXTRAS = {
    "betas": torch.zeros(1000),
    "alphas_cumprod_prev": torch.zeros(1000),
    "sqrt_recipm1_alphas_cumprod": torch.zeros(1000),
    "posterior_mean_coef1": torch.zeros(1000),
    "log_one_minus_alphas_cumprod": torch.zeros(1000),
    "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
    "model_ema.num_updates": torch.tensor(5),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}


@pytest.mark.parametrize("place", ["beside", "in tokenizer/", "named"])
@pytest.mark.parametrize("sizes", ["plain", "SD's plan"])
def test_one_file_is_the_same_model_as_the_folder(tmp_path, sizes, place):
    pipe = Pair(tmp_path / "model", **SIZES[sizes])
    folder = {"beside": "file", "in tokenizer/": "file/tokenizer", "named": "words"}[place]
    words = "model vocabulary" if place == "beside" else "model/tokenizer"
    shutil.copytree(tmp_path / words, tmp_path / folder)
    (tmp_path / "file").mkdir(exist_ok=True)
    file = tmp_path / "file" / "model.safetensors"
    save_compvis(file, pipe.folder, compvis_names(pipe.ours), EXTRAS)
    tokenizer = tmp_path / folder if place == "named" else None
    loaded = load_stable_diffusion(file, "cpu", torch.float64, tokenizer=tokenizer)
    for part in FOLDERS:
        a, b = getattr(loaded, part), getattr(pipe.ours, part)
        assert a.config == b.config
        for name, value in b.state_dict().items():
            assert torch.equal(a.state_dict()[name], value), name
    assert loaded.image_size == 64 * loaded.autoencoder.config.factor  # trained at 64x64
    options = {"prompt": "a red cat", "steps": 2, "z_T": draw(1, 4, 8, 8), "sampler": "plms"}
    assert torch.equal(loaded.sample(**options), pipe.ours.sample(**options))


# ---- older files


def test_names_of_older_versions(plain, tmp_path):
    parts = state_dicts(plain.folder)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {}
    for name, value in parts["vae"].items():
        for new, older in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{older}.")
        vae[name] = value
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in vae
    text = parts["text_encoder"] | {
        "text_model.embeddings.position_ids": torch.arange(77)[None]
    }
    bare = {name.removeprefix("text_model."): value for name, value in text.items()}
    for i, words in enumerate((text, bare)):
        folder = tmp_path / f"old {i}"
        shutil.copytree(plain.folder, folder)
        save_file(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
        save_file(words, folder / "text_encoder" / "model.safetensors")
        loaded = load_stable_diffusion(folder, "cpu", torch.float64)
        for part in FOLDERS:
            for name, value in getattr(plain.ours, part).state_dict().items():
                assert torch.equal(getattr(loaded, part).state_dict()[name], value)


# ---- dtypes


def test_float32_on_a_cpu_unless_said(plain):
    loaded = load_stable_diffusion(plain.folder, device="cpu")
    assert loaded.dtype == torch.float32 and loaded.device.type == "cpu"
    options = {"prompt": PROMPTS, "steps": 4, "sampler": "plms", "z_T": draw(2, 4, 8, 8)}
    torch.testing.assert_close(
        loaded.sample(2, **options), plain.ours.sample(2, **options), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_keep_the_autoencoder_wide(plain, dtype):
    loaded = load_stable_diffusion(plain.folder, device="cpu", dtype=dtype)
    assert loaded.dtype == dtype
    assert {p.dtype for p in loaded.text_encoder.parameters()} == {dtype}
    assert {p.dtype for p in loaded.autoencoder.parameters()} == {torch.float32}
    x = loaded.sample(prompt="a red cat", steps=2, guidance=2.0)
    assert x.isfinite().all() and x.dtype == torch.float32
    assert loaded.vary(x, 0.5, steps=2).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int64, "float32", torch.complex64])
def test_other_dtypes_are_refused(plain, dtype):
    with pytest.raises(InputError, match="dtype must be"):
        load_stable_diffusion(plain.folder, dtype=dtype)


def test_v_prediction(tmp_path):
    pair = Pair(tmp_path / "v", **PLAIN, prediction_type="v_prediction")
    assert pair.ours.parameterisation == "v"
    pair.theirs.scheduler = pair.use("ddim")  # their PLMS extrapolates v, ours eps
    z_T = draw(1, 4, 8, 8)
    expected = pair.theirs(
        "a red cat",
        latents=z_T,
        num_inference_steps=4,
        guidance_scale=2.0,
        output_type="latent",
    ).images
    options = {"prompt": "a red cat", "guidance": 2.0, "sampler": "ddim", "steps": 4}
    *_, last = pair.ours.denoise(z_T=z_T, **options)
    same(last.z_t, expected, 1e-9)


# ---- and back


def test_our_own_checkpoint_keeps_it_whole(plain, tmp_path):
    loaded = load_stable_diffusion(plain.folder, device="cpu")
    loaded.save(tmp_path / "checkpoint")
    again = LatentDiffusion.load(tmp_path / "checkpoint", device="cpu")
    assert (again.schedule, again.grid, again.guidance) == (SCHEDULE, GRID, 7.5)
    options = {"prompt": "a red cat", "steps": 2, "seed": 1}
    assert torch.equal(again.sample(**options), loaded.sample(**options))


def test_a_saved_folder_holds_the_same_tensors_and_settings(pair, tmp_path):
    loaded = load_stable_diffusion(pair.folder, device="cpu")
    save_stable_diffusion(loaded, tmp_path / "new" / "model")
    first, again = state_dicts(pair.folder), state_dicts(tmp_path / "new" / "model")
    for part, tensors in first.items():
        assert again[part].keys() == tensors.keys()
        assert all(torch.equal(again[part][name], value) for name, value in tensors.items())
    for name in ("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"):
        a, b = (
            json.loads((folder / name).read_text())
            for folder in (pair.folder, tmp_path / "new" / "model")
        )
        assert {k: v for k, v in a.items() if k in b and k[0] != "_"} == {
            k: v for k, v in b.items() if k in a and k[0] != "_"
        }
        assert a["_class_name"] == b["_class_name"]
    for part in FOLDERS:
        again = getattr(load_stable_diffusion(tmp_path / "new" / "model", "cpu"), part)
        assert again.config == getattr(loaded, part).config


def diffusers_of(folder):
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, dtype=torch.float64
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_diffusers_loads_what_is_saved_and_makes_the_same_images(pair, tmp_path):
    save_stable_diffusion(pair.ours, tmp_path / "model")
    again = diffusers_of(tmp_path / "model")
    exact(again.scheduler)
    z_T = draw(2, 4, 8, 8)
    options = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "pt"}
    expected = again(PROMPTS, latents=z_T, **options).images * 2 - 1
    found = pair.ours.sample(2, prompt=PROMPTS, guidance=3.0, sampler="plms", steps=5, z_T=z_T)
    same(found.double(), expected, 1e-6)


def small(
    tokenizer, grid, time_shift=0, schedule=None, parameterisation="v", coordinates=False, **vae
):
    """A model of this course's own making, with CLIP's kind of words."""
    c = TextEncoderConfig(
        tokenizer.vocabulary, 77, width=16, causal=True, activation="gelu", hidden=24
    )
    unet = UNetConfig(
        channels=(8, 16),
        heads=2,
        groups=4,
        context_dim=16,
        time_shift=time_shift,
        blocks=1,
        coordinates=coordinates,
    )
    vae = AutoencoderConfig(channels=(4, 8), groups=2, blocks=1, **vae)
    parts = [filled(m, i).double() for i, m in enumerate([Autoencoder(vae), UNet(unet)])]
    text = filled(TextEncoder(c), 2).double()
    schedule = schedule or NoiseSchedule("cosine", 1000)
    return LatentDiffusion(
        *parts, schedule, parameterisation, 16, tokenizer, text, guidance=2.0, grid=grid
    )


@pytest.mark.parametrize("parameterisation", ["eps", "v", "x0"])
@pytest.mark.parametrize("grid", [Grid(), Grid("leading", 1, 1), Grid("leading", 1, 0)])
def test_a_model_of_our_own_becomes_one_of_theirs(plain, tmp_path, grid, parameterisation):
    """Times from 1 and a latent scale a channel, for which diffusers has no setting."""
    schedule = NoiseSchedule("linear", 1000)
    pipe = small(plain.ours.tokenizer, grid, 0, schedule, parameterisation)
    pipe.autoencoder.set_latent_scale(torch.arange(4.0), torch.tensor([0.5, 1.0, 2.0, 3.0]))
    save_stable_diffusion(pipe, tmp_path / "own")
    again = diffusers_of(tmp_path / "own")
    config = {**again.scheduler.config, "clip_sample": False}
    again.scheduler = DDIMScheduler.from_config(config)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # theirs are float32
    again.scheduler.alphas_cumprod = (1 - beta).cumprod(0)
    final = again.scheduler.alphas_cumprod[0] if grid.final else torch.tensor(1.0).double()
    again.scheduler.final_alpha_cumprod = final
    z_T = draw(2, 4, 8, 8)
    options = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "pt"}
    expected = again(PROMPTS, latents=z_T, **options).images * 2 - 1
    found = pipe.sample(2, prompt=PROMPTS, guidance=3.0, sampler="ddim", steps=5, z_T=z_T)
    same(found.double(), expected, 1e-6)
    x = picture(pipe)
    with torch.no_grad():
        same(again.vae.encode(x).latent_dist.mean, pipe.encode(x))
        same(again.vae.encode(x).latent_dist.std, pipe.autoencoder.encode(x).std)


def test_the_cosine_schedule_goes_back_and_forth(plain, tmp_path):
    pipe = small(plain.ours.tokenizer, Grid())
    save_stable_diffusion(pipe, tmp_path / "own")
    loaded = load_stable_diffusion(tmp_path / "own", "cpu", torch.float64)
    assert (loaded.schedule, loaded.grid) == (pipe.schedule, pipe.grid)
    options = {"prompt": "blue", "guidance": 2.0, "steps": 4, "seed": 1}
    torch.testing.assert_close(
        loaded.sample(**options), pipe.sample(**options), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"patch": 2}, "patch = 2"),
        ({"linear": True}, "linear = True"),
        ({"coordinates": True}, "coordinates = True"),
        ({"grid": Grid("leading", 0, 0)}, "offset is 1"),
        ({"grid": Grid("trailing", 0, 3)}, "final level 0 or 1"),
        ({"grid": Grid(lowest=60)}, "the lowest 0"),
    ],
)
def test_what_diffusers_cannot_hold_is_not_saved(plain, tmp_path, changes, found):
    pipe = small(plain.ours.tokenizer, **{"grid": Grid()} | changes)
    with pytest.raises(InputError, match=found):
        save_stable_diffusion(pipe, tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


def test_models_without_clips_words_are_not_saved(tmp_path):
    unet = UNet(UNetConfig(channels=(8,), attention=(True,), groups=4, context_dim=16))
    text = TextEncoder(TextEncoderConfig(3, 16, width=16))
    vae = Autoencoder(AutoencoderConfig(channels=(4, 8), groups=2, blocks=1))
    words = WordTokenizer(["red", "blue"])
    pipe = LatentDiffusion(vae, unet, NoiseSchedule(), "v", 16, words, text)
    with pytest.raises(InputError, match="tokenizer is WordTokenizer"):
        save_stable_diffusion(pipe, tmp_path / "own")


def test_nothing_is_overwritten(plain, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        save_stable_diffusion(plain.ours, tmp_path)
    with pytest.raises(StorageError, match="exists already"):
        save_stable_diffusion(plain.ours, tmp_path / "thesis.txt")
    with pytest.raises(StorageError, match="cannot save"):
        save_stable_diffusion(plain.ours, tmp_path / "thesis.txt" / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    save_stable_diffusion(plain.ours, tmp_path / "empty")
    assert (tmp_path / "empty" / "model_index.json").is_file()


def test_the_published_file_is_understood_from_its_shapes(plain, tmp_path, monkeypatch):
    """Full size, both layouts: sizes, and a place for every tensor with none left over."""
    fixture = Path(__file__).parent / "fixtures" / "sd15_state_dict_shapes.json"
    shapes = json.loads(fixture.read_text())

    def stored(found):
        return {
            name: StoredTensor(tmp_path, name, "F32", (*s,), 0) for name, s in found.items()
        }

    monkeypatch.setattr(compvis, "stored_tensors", lambda path: stored(shapes["ldm"]))
    one_file = compvis.read_file(tmp_path / "v1-5.safetensors", plain.folder / "tokenizer")
    text = replace(TextEncoderConfig.stable_diffusion_v1(), hidden=3072)
    assert one_file.unet == UNetConfig.stable_diffusion_v1()
    assert one_file.autoencoder == AutoencoderConfig()
    assert one_file.text_encoder == text
    assert one_file.image_size == 512
    parts = {part: stored(shapes["diffusers"][folder]) for part, folder in FOLDERS.items()}
    folder = replace(one_file, layout="diffusers", tensors=parts)
    with torch.device("meta"):
        modules = {
            "unet": UNet(UNetConfig.stable_diffusion_v1()),
            "autoencoder": Autoencoder(AutoencoderConfig()),
            "text_encoder": TextEncoder(text),
        }
    for published in (one_file, folder):
        places = {p: published.find(p, module) for p, module in modules.items()}
        assert [len(found) for found in places.values()] == [686, 248, 196]
        for part, found in places.items():
            for name, value in modules[part].named_parameters():
                assert found[name].shape in (value.shape, (*value.shape, 1, 1))


def test_the_published_sizes_are_known():
    """Configs of diffusers' own classes at full size, without memory, become ours."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            cross_attention_dim=768, block_out_channels=(320, 640, 1280, 1280)
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    assert read_unet(dict(unet.config)) == UNetConfig.stable_diffusion_v1()
    assert read_autoencoder(dict(vae.config)) == (AutoencoderConfig(), 0.18215)


def test_the_door_is_open():
    assert ldm_edu.load_stable_diffusion is load_stable_diffusion
