"""Files that are wrong, hostile, large or far away: one line that says what to do."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from published import PLAIN, TEXT, save_compvis, theirs
from safetensors.torch import load_file, save_file

import ldm_edu.stable_diffusion.hub as hub
from ldm_edu.errors import CheckpointError, LdmEduError
from ldm_edu.stable_diffusion import load_stable_diffusion
from ldm_edu.stable_diffusion.key_map import key_map

NAME = "stable-diffusion-v1-5/stable-diffusion-v1-5"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "model"
    theirs(folder, **PLAIN)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture(scope="module")
def good_file(good, tmp_path_factory):
    pipe, names = load_stable_diffusion(good, "cpu"), {}
    for part, inside in [("unet",) * 2, ("autoencoder", "vae"), ("text_encoder",) * 2]:
        module = getattr(pipe, part)
        args = part, module.state_dict(), module.config
        ours = key_map(*args, "compvis")
        names[inside] = {v: ours[k] for k, v in key_map(*args, "diffusers").items()}
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save_compvis(path, good, names)
    shutil.copytree(good / "tokenizer", path.parent / "tokenizer")
    return path


@pytest.fixture
def file(good_file, tmp_path):
    return Path(shutil.copytree(good_file.parent, tmp_path / "file")) / good_file.name


def refuse(path, message, **options):
    with pytest.raises(LdmEduError, match=message) as caught:
        load_stable_diffusion(path, device="cpu", **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


def change(path, **values):
    """Settings of a JSON file; None takes one out."""
    settings = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def rewrite(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


# ---- not weights, or not all of them


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("name", ["sd-v1-4.ckpt", "model.bin", "model.pt", "model.PTH"])
def test_a_pickle_is_not_opened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    refuse(tmp_path / name, r"is a pickle.*supported: \.safetensors")


def test_a_pickle_in_a_folder_is_named(folder):
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    refuse(folder, r"diffusion_pytorch_model\.bin is a pickle")


def test_pickles_beside_safetensors_do_not_matter(folder):
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    load_stable_diffusion(folder, "cpu")


@pytest.mark.parametrize("size", [0, 4, 300, -1])
def test_a_truncated_file(folder, file, size):
    for path, root in ((folder / UNET, folder), (file, file)):
        path.write_bytes(path.read_bytes()[:size])
        refuse(root, "is no whole safetensors file")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>not found</html>" * 9,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (8).to_bytes(8, "little") + b'{"a": 1}',
    ],
)
def test_something_else_under_that_name(folder, file, content):
    for path, root in ((folder / UNET, folder), (file, file)):
        path.write_bytes(content)
        refuse(root, "is no whole safetensors file")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_a_missing_part(folder, part):
    shutil.rmtree(folder / part)
    refuse(folder, f"no folder {part}: |no tokenizer in .*/{part}")


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", UNET])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refuse(folder, re.escape(Path(name).name))


def test_folders_that_are_no_model(tmp_path):
    refuse(tmp_path, "has no folder unet: .*found nothing")
    (tmp_path / "sd-v1-4.ckpt").write_bytes(pickle.dumps(Trap()))
    refuse(tmp_path, r"sd-v1-4\.ckpt is a pickle")
    (tmp_path / "v1-5-pruned.safetensors").write_bytes(b"")
    refuse(tmp_path, r"load v1-5-pruned\.safetensors itself")


@pytest.mark.parametrize(
    "name", ["nowhere", "./a/b", "a/b/c", "sd.safetensors", "a/b.ckpt", ""]
)
def test_no_such_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("it asked the hub"))
    refuse(name, "no file or folder" if name else "has no folder unet")


@pytest.mark.parametrize("name", [None, 5, b"model", ["model"]])
def test_what_is_no_path(good, name):
    refuse(name, "is a str, found")
    if name is not None:
        refuse(good, "is a str, found", tokenizer=name)


# ---- other models


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda f: (f / "text_encoder_2").mkdir(), "Stable Diffusion XL .*supported: Stable"),
        (lambda f: (f / "transformer").mkdir(), "a diffusion transformer"),
        (
            lambda f: change(f / "unet/config.json", cross_attention_dim=1024),
            r"Stable Diffusion 2 \(a context of 1024\); supported: Stable Diffusion v1",
        ),
        (
            lambda f: change(f / "unet/config.json", use_linear_projection=True),
            "Stable Diffusion 2",
        ),
        (
            lambda f: change(f / "unet/config.json", attention_head_dim=[5, 10]),
            "Stable Diffusion 2",
        ),
        (lambda f: change(f / "unet/config.json", in_channels=9), "9 channels.*inpainting"),
        (lambda f: change(f / "unet/config.json", cross_attention_dim=32), "context of 32"),
        (
            lambda f: change(f / "unet/config.json", class_embed_type="timestep"),
            "class_embed_type is 'timestep', ours is None",
        ),
        (
            lambda f: change(f / "unet/config.json", down_block_types=["AttnDownBlock2D"] * 2),
            "down_block_types is 'AttnDownBlock2D'",
        ),
        (
            lambda f: change(f / "unet/config.json", up_block_types=["UpBlock2D"] * 2),
            "do not mirror",
        ),
        (lambda f: change(f / "vae/config.json", shift_factor=0.1), "shift_factor is 0.1"),
        (lambda f: change(f / "vae/config.json", out_channels=4), "out_channels is 4"),
        (
            lambda f: change(f / "text_encoder/config.json", hidden_act="relu"),
            "found 'relu'",
        ),
        (
            lambda f: change(f / "text_encoder/config.json", vocab_size=100),
            "the text encoder reads 77 of 100",
        ),
        (
            lambda f: change(f / "scheduler/scheduler_config.json", prediction_type="flow"),
            "prediction_type is 'flow', supported: epsilon or v_prediction or sample",
        ),
        (
            lambda f: change(f / "scheduler/scheduler_config.json", trained_betas=[0.1]),
            "trained_betas",
        ),
    ],
)
def test_another_model_is_named(folder, edit, found):
    edit(folder)
    refuse(folder, found)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("conditioner.embedders.1.model.ln_final.weight", "Stable Diffusion XL"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2"),
        ("model.diffusion_model.joint_blocks.0.weight", "Stable Diffusion 3"),
        ("control_model.time_embed.0.weight", "a ControlNet"),
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA"),
        ("down_blocks.0.resnets.0.conv1.weight", "give the folder"),
        ("a.new.idea", "a.new.idea is of no part"),
        ("model.diffusion_model.label_emb.0.0.weight", "unet: label_emb.0.0.weight is .*left"),
    ],
)
def test_another_model_in_one_file_is_named(file, name, found):
    rewrite(file, lambda tensors: tensors.update({name: torch.zeros(2)}))
    refuse(file, f"{found}.*")


@pytest.mark.parametrize("part", ["model.diffusion_model", "first_stage", "cond_stage_model"])
def test_one_file_without_a_part(file, part):
    def edit(tensors):
        for name in [n for n in tensors if n.startswith(part)]:
            del tensors[name]

    rewrite(file, edit)
    refuse(file, f"has no .*{part}")


# ---- wrong tensors


@pytest.mark.parametrize("name", ["conv_in.weight", "up_blocks.1.attentions.0.proj_in.weight"])
def test_a_tensor_of_another_shape(folder, name):
    rewrite(folder / UNET, lambda t: t.update({name: torch.zeros(3, 1)}))
    refuse(
        folder, rf"unet: {re.escape(name)} is \(3, 1\), but \(\d+, \d+, \d, \d\) .*1 tensors"
    )


def test_a_tensor_that_is_missing_or_left_over(folder):
    rewrite(folder / UNET, lambda t: t.pop("conv_out.bias"))
    refuse(folder, r"conv_out\.bias is absent, but \(4,\).*0 tensors.*1 are missing, 0 left")
    rewrite(folder / UNET, lambda t: t.update({"conv_out.bias": torch.zeros(4)}))
    rewrite(folder / UNET, lambda t: t.update({"extra": torch.zeros(4)}))
    refuse(folder, r"extra is \(4,\), but absent.*0 are missing, 1 left over")


def test_numbers_that_are_no_floats(folder):
    rewrite(
        folder / UNET, lambda t: t.update({"conv_out.bias": torch.ones(4, dtype=torch.int8)})
    )
    refuse(folder, r"conv_out\.bias is stored as I8; supported: F64, F32, F16, BF16")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", (3,)),
        ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight", ()),
        ("first_stage_model.post_quant_conv.weight", ()),
        (
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
            (2, 3, 4),
        ),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", (33, 32, 3, 3)),
    ],
)
def test_sizes_that_cannot_be(file, name, shape):
    rewrite(file, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    refuse(file, "shapes of another model|is for|wrong shape")


def test_a_file_made_to_take_all_day(file, folder):
    name = "model.diffusion_model.input_blocks.{}.0.op.weight"
    rewrite(file, lambda t: t.update({name.format(10**9): t.pop(name.format(2))}))
    refuse(file, "input_blocks.1000000001.0.in_layers.2.weight")
    rewrite(
        file, lambda t: t.update({f"{name.format(10**9)[:-10]}.a": t.pop(name.format(10**9))})
    )
    refuse(file, "1000000000 blocks or layers")
    change(folder / "unet/config.json", layers_per_block=10**6)
    refuse(folder, "1000000 blocks or layers")


# ---- wrong settings


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"block_out_channels": "wide"}, "block_out_channels is 'w'"),
        ({"block_out_channels": 5}, "wrong type"),
        ({"block_out_channels": [32, -64]}, "is -64"),
        ({"block_out_channels": [32, 33]}, "33 must divide"),
        ({"layers_per_block": [1, 2]}, r"is \[1, 2\]"),
        ({"norm_num_groups": True}, "is True"),
        ({"attention_head_dim": 1.5}, "is 1.5"),
        ({"sample_size": [8, 8]}, r"sample_size is \[8, 8\]"),
        ({"in_channels": None}, "lacks 'in_channels'"),
        ({"down_block_types": None}, "lacks 'down_block_types'"),
        ({"in_channels": 10**30}, "positive whole number"),
        ({"down_block_types": [["DownBlock2D"]]}, "wrong type"),
    ],
)
def test_settings_that_cannot_be(folder, values, found):
    change(folder / "unet" / "config.json", **values)
    assert "unet/config.json" in refuse(folder, found)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 10**5])
@pytest.mark.parametrize(
    "name", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
)
def test_settings_that_are_no_json(folder, name, text):
    (folder / name).write_text(text, encoding="latin-1")
    refuse(folder, f"{re.escape(name)} (is no JSON|holds a JSON list)")


@pytest.mark.parametrize("spacing", ["linspace", "nonsense"])
def test_a_spacing_that_is_not_ours_is_refused_by_name(folder, spacing):
    change(folder / "scheduler/scheduler_config.json", timestep_spacing=spacing)
    refuse(folder, f"timestep_spacing is '{spacing}', supported: leading or trailing")


def test_scales_and_betas_that_cannot_be(folder):
    change(folder / "scheduler/scheduler_config.json", beta_start=2.0)
    refuse(folder, "beta_start must lie")
    change(folder / "scheduler/scheduler_config.json", beta_start="x")
    refuse(folder, "wrong type")
    change(folder / "scheduler/scheduler_config.json", beta_start=0.001)
    for scale in (0, -1, float("nan"), float("inf")):
        change(folder / "vae/config.json", scaling_factor=scale)
        refuse(folder, "scaling_factor")


# ---- the vocabulary of one file


def test_one_file_without_a_vocabulary(file):
    shutil.rmtree(file.parent / "tokenizer")
    message = refuse(file, "holds weights but no vocabulary: put vocab.json and merges.txt")
    assert str(file.parent / "tokenizer") in message and "tokenizer=" in message
    refuse(file, "no tokenizer in", tokenizer=file.parent)


# ---- precision


def test_weights_of_16_bits_serve_where_there_are_no_others(folder, good):
    for name in (
        UNET,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    ):
        tensors = {k: v.half() for k, v in load_file(folder / name).items()}
        save_file(tensors, (folder / name).with_suffix(".fp16.safetensors"))
        (folder / name).unlink()
    loaded, wide = load_stable_diffusion(folder, "cpu"), load_stable_diffusion(good, "cpu")
    assert loaded.dtype == torch.float32
    half = wide.unet.conv_in.weight.half()
    assert torch.equal(loaded.unet.conv_in.weight, half.float())
    loaded = load_stable_diffusion(folder, "cpu", torch.float16)
    assert torch.equal(loaded.unet.conv_in.weight, half)


@pytest.mark.parametrize(("dtype", "number"), [(torch.float32, 1.0), (torch.float16, 2.0)])
def test_of_two_precisions_the_wanted_one_is_read(folder, dtype, number):
    both = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    tensors = load_file(folder / UNET)
    for name, value, kind in zip(both, (1.0, 2.0), (torch.float32, torch.float16), strict=True):
        tensors["conv_out.bias"] = torch.full((4,), value)
        save_file({k: v.to(kind) for k, v in tensors.items()}, folder / "unet" / name)
    loaded = load_stable_diffusion(folder, "cpu", dtype)
    assert loaded.unet.conv_out.bias.tolist() == [number] * 4


# ---- the hub

FILES = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned-emaonly.ckpt",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    *(
        f"{part}/{name}"
        for part in ("unet", "vae")
        for name in (
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
        )
    ),
]


@pytest.mark.parametrize("half", [False, True])
def test_only_what_is_needed_is_chosen(half):
    ending = ".fp16.safetensors" if half else ".safetensors"
    assert sorted(hub.choose(NAME, FILES, half)) == sorted(
        [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "text_encoder/config.json",
            "unet/config.json",
            "vae/config.json",
            f"text_encoder/model{ending}",
            f"unet/diffusion_pytorch_model{ending}",
            f"vae/diffusion_pytorch_model{ending}",
        ]
    )
    one = [f for f in FILES if ".fp16." not in f]
    assert hub.choose(NAME, one, True) == hub.choose(NAME, one, False)
    with pytest.raises(CheckpointError, match=r"has no unet/diffusion_pytorch_model"):
        hub.choose(NAME, [f for f in FILES if not f.startswith("unet/diff")], False)


@pytest.fixture
def nothing_cached(monkeypatch, tmp_path):
    asked = []

    def snapshot(name, local_files_only=False, **options):
        if local_files_only:
            raise LocalEntryNotFoundError("nothing here")
        asked.append(options)
        return str(tmp_path / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_without_a_network_it_says_what_to_get_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    message = refuse(NAME, "the hub cannot be reached")
    assert time.monotonic() - started < 10
    assert f"https://huggingface.co/{NAME}" in message and "load the folder" in message
    for word in ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json"):
        assert word in message


def test_a_download_asks_for_the_chosen_files_once(monkeypatch, folder, nothing_cached):
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: FILES)
    load_stable_diffusion(NAME, "cpu")
    load_stable_diffusion(NAME, "cpu", torch.float16)
    wanted = [options["allow_patterns"] for options in nothing_cached]
    assert wanted == [hub.choose(NAME, FILES, half) for half in (False, True)]


def test_what_was_downloaded_needs_no_network(monkeypatch, folder):
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("it asked"))

    def snapshot(name, local_files_only=False):
        assert local_files_only
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_stable_diffusion(NAME, "cpu").image_size == 16


@pytest.mark.parametrize("name", [UNET, "vae/config.json", "tokenizer"])
def test_half_a_download_is_completed(monkeypatch, folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(folder))
    refuse(NAME, "the hub cannot be reached")


def test_what_the_hub_answers_is_told_in_one_line(monkeypatch, nothing_cached):
    def gated(name):
        raise OSError("401 Client Error.\n\nAccess to this model is restricted. " + "x" * 999)

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", gated)
    refuse(NAME, r"cannot download .*401 Client Error\. Access to this model is restricted")


# ---- memory

MEASURE = """
import re, sys
from pathlib import Path
import torch
import ldm_edu

def peak():  # in bytes
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
torch.nn.functional.conv2d(torch.ones(1, 4, 8, 8), torch.ones(4, 4, 3, 3))  # libraries awake
before = peak()
pipe = ldm_edu.load_stable_diffusion(sys.argv[1], "cpu")
after = peak()
modules = (pipe.unet, pipe.autoencoder, pipe.text_encoder)
print(after - before, sum(p.numel() * 4 for m in modules for p in m.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_the_weights_are_held_once(tmp_path, kind):
    sizes = {
        "unet": ((256, 384), (True, True), 2, 8, 32, 1),
        "vae": ((64, 128), 1, 32),
        "text": TEXT | {"width": 512, "heads": 8, "layers": 6, "hidden": 2048},
    }
    pipe = theirs(tmp_path / "model", **sizes)
    if kind == torch.float16:
        pipe.to(kind).save_pretrained(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "model")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, weights = map(int, done.stdout.split())
    assert weights > 2e8
    assert grown < 1.3 * weights, f"{grown / weights:.2f} times the weights"
