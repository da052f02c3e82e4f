"""The whole story, small: every file is left, stops lose nothing, bad input writes nothing."""

import json
import os
import re
from dataclasses import replace

import pytest
import torch
from helpers import interrupt_in, small_pipeline, weights

from ldm_edu import LatentDiffusion, cli, data, quickstart, recipes, stages
from ldm_edu.autoencoder import AutoencoderConfig
from ldm_edu.data.judge import judge
from ldm_edu.data.shapes import make
from ldm_edu.errors import InputError
from ldm_edu.quickstart_report import noising
from ldm_edu.unet import UNetConfig

LOAD = data.load
SMALL = replace(
    recipes.QUICKSTART["shapes"],
    autoencoder=AutoencoderConfig(
        latent_channels=4, channels=(8, 8), blocks=1, patch=2, groups=4, linear=True
    ),
    unet=UNetConfig(4, 4, channels=(8, 8), blocks=1, groups=4, context_dim=64, dropout=0.2),
    batch_size=8,
    one_object=False,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer pictures and smaller networks, by the same path."""
    monkeypatch.setattr(quickstart, "QUICKSTART", {"shapes": SMALL})
    monkeypatch.setattr(quickstart, "SAMPLING", {"sampler": "ddpm", "steps": 3})
    pictures = {s: make(n, seed=n) for s, n in (("train", 96), ("test", 24))}
    monkeypatch.setattr(data, "load", lambda name, split="train", root=None: pictures[split])


def run(*arguments):
    return cli.main(["quickstart", *map(str, arguments)])


def test_leaves_weights_log_samples_and_a_page(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("--steps", 3, 2, "--out", out) == 0
    names = {p.name for p in out.iterdir()}
    assert {"model", "log.jsonl", "samples.png", "report.html", "run.json"} <= names
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["step"]) for e in log] == [
        *(("autoencoder", s) for s in (1, 2, 3)),
        *(("diffusion", s) for s in (1, 2)),
    ]
    page = (out / "report.html").read_text()
    assert "ldm-edu quickstart --data shapes --steps 3 2" in page
    assert str(out / "report.html") in capsys.readouterr().out
    pipe = LatentDiffusion.load(out / "model")
    assert pipe.sample(2, steps=2).shape == (2, 3, 32, 32)
    assert pipe.sample(2, steps=2, prompt="a red circle").shape == (2, 3, 32, 32)
    assert re.search(r"accepts \d+% of 256 samples", page)
    assert all(caption in page for caption in data.load("shapes", "test").captions)
    z = torch.cat([pipe.encode(x) for x in images().split(32)])
    assert abs(z.std() - 1) < 0.05  # the scale was measured on these


def test_the_noise_on_the_page_is_the_seeds(tmp_path):
    pipe, x0, films = small_pipeline(), torch.zeros(3, 3, 16, 16), []
    for seed in (0, 0, 1):
        torch.randn(5)  # whatever was drawn before
        films.append(noising(pipe, x0, pipe.encode(x0), seed))
    assert torch.equal(films[0].pixels, films[1].pixels)
    assert torch.equal(films[0].latents_rgb, films[1].latents_rgb)
    assert not torch.equal(films[0].pixels, films[2].pixels)


def test_a_recipe_without_words_needs_no_captions(tmp_path, monkeypatch):
    mute = replace(SMALL, unet=replace(SMALL.unet, context_dim=None))
    monkeypatch.setattr(quickstart, "QUICKSTART", {"shapes": mute})
    assert run("--steps", 2, 2, "--out", tmp_path / "run") == 0
    pipe = LatentDiffusion.load(tmp_path / "run" / "model")
    assert pipe.tokenizer is None and pipe.sample(2, steps=2).shape == (2, 3, 32, 32)


def test_five_minutes_are_spent_on_pictures_of_one_object(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "QUICKSTART", {"shapes": replace(SMALL, one_object=True)})
    seen, loss = [], stages.autoencoder_loss

    def looking(x, *args):
        seen.append(x)
        return loss(x, *args)

    monkeypatch.setattr(stages, "autoencoder_loss", looking)
    pictures = {s: make(n, seed=n) for s, n in (("train", 96), ("test", 64))}
    monkeypatch.setattr(data, "load", lambda name, split="train", root=None: pictures[split])
    assert run("--steps", 3, 2, "--out", tmp_path / "run") == 0
    verdicts = judge(((torch.cat(seen) + 1) * 127.5).round().byte())
    assert len(verdicts) >= 3 * 8 and all(len(v.objects) == 1 for v in verdicts)


def images():
    return data.load("shapes").images.float() / 127.5 - 1


def test_minutes_become_steps(tmp_path):
    assert run("--minutes", 0.005, "--out", tmp_path / "run") == 0
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "autoencoder" in log and "diffusion" in log


@pytest.mark.parametrize(("stage", "at"), [("autoencoder", 2), ("diffusion", 3)])
def test_ctrl_c_then_resume_gives_the_same_model(tmp_path, monkeypatch, capsys, stage, at):
    assert run("--steps", 4, 5, "--out", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_in(patch, stage, at)
        assert run("--steps", 4, 5, "--out", tmp_path / "cut") == 130
    told = capsys.readouterr().err
    assert f"{stage} stopped after step {at}" in told and "--resume" in told
    assert run("--resume", "--out", tmp_path / "cut") == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    for name in ("log.jsonl", "samples.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "cut" / name
        ).read_bytes()


def test_a_finished_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    assert run("--steps", 2, 2, "--out", tmp_path) == 2
    assert "--resume" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "shape"], "'shape' is unknown"),
        (["--minutes", "0"], "minutes must be more than 0, found 0"),
        (["--minutes", "-3"], "minutes must be more than 0, found -3"),
        (["--minutes", "nan"], "found nan"),
        (["--minutes", "inf"], "found inf"),
        (["--steps", "1", "5"], "at least 2"),
        (["--seed", "-1"], "seed must be a whole number from 0 to 2**32 - 1, found -1"),
        (["--device", "abacus"], "abacus"),
        (["--root", "/nowhere"], "root"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(data, "load", LOAD)
    out = tmp_path / "run"
    assert run(*arguments, "--out", out) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"ldm-edu: .+\n", told) and message in told
    assert not out.exists()


def test_resume_wants_the_same_run(tmp_path, capsys):
    assert run("--resume", "--out", tmp_path / "none") == 2
    assert "no run to resume" in capsys.readouterr().err
    assert run("--steps", 2, 2, "--out", tmp_path / "run") == 0
    assert run("--resume", "--steps", 2, 9, "--out", tmp_path / "run") == 2
    assert "steps (2, 2), not (2, 9)" in capsys.readouterr().err
    other = quickstart.Plan(steps=(2, 2), seed=5)
    with pytest.raises(InputError, match="seed 0, not 5"):
        quickstart.quickstart(other, tmp_path / "run", resume=True)


def test_a_damaged_state_is_named(tmp_path, capsys):
    assert run("--steps", 2, 2, "--out", tmp_path / "run") == 0
    state = tmp_path / "run" / "diffusion" / "model.safetensors"
    broken = bytearray(state.read_bytes())
    broken[-1] ^= 1
    state.write_bytes(broken)
    assert run("--resume", "--out", tmp_path / "run") == 2
    assert "damaged" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("--out", tmp_path / "file" / "run") == 2
    assert "cannot make the folder" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_keeps_the_last_state(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_in(patch, "diffusion", 1)
        assert run("--steps", 2, 3, "--out", out) == 130
    capsys.readouterr()
    with monkeypatch.context() as patch:

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        assert run("--resume", "--out", out) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert run("--resume", "--out", out) == 0
