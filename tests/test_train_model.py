"""The recorded commands: two stages in one folder, each stopped and gone on with at will."""

from dataclasses import replace

import pytest
import torch
from helpers import interrupt_in, weights

from ldm_edu import LatentDiffusion, cli, data, recipes, train_model
from ldm_edu.autoencoder import AutoencoderConfig
from ldm_edu.data.shapes import make
from ldm_edu.unet import UNetConfig

SMALL = replace(
    recipes.TRAINED["shapes"],
    autoencoder=AutoencoderConfig(
        latent_channels=4, channels=(8, 8), blocks=1, patch=2, groups=4, linear=True
    ),
    unet=UNetConfig(4, 4, channels=(8, 8), blocks=1, groups=4, context_dim=64),
    batch_size=8,
    steps=(3, 4),
    lowest=100,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(train_model, "TRAINED", {"shapes": SMALL, "other": SMALL})
    monkeypatch.setattr(data, "load", lambda name, split="train", root=None: make(48, seed=1))


def run(stage, out, *arguments, recipe="shapes"):
    options = ["--recipe", recipe, "--out", out, *arguments]
    return cli.main(["train", stage, *map(str, options)])


def test_two_commands_make_a_model_that_reads_captions(tmp_path, capsys):
    assert run("autoencoder", tmp_path / "r") == 0
    assert run("diffusion", tmp_path / "r") == 0
    assert str(tmp_path / "r" / "model") in capsys.readouterr().out
    pipe = LatentDiffusion.load(tmp_path / "r" / "model")
    assert pipe.sample(2, steps=2, prompt="a small red circle").shape == (2, 3, 32, 32)
    assert pipe.timesteps(3) == [1000, 700, 400]  # the recipe's lowest level is the model's


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_a_stage_that_was_stopped_ends_as_if_it_never_was(tmp_path, monkeypatch, stage, capsys):
    for s in train_model.STAGES:
        assert run(s, tmp_path / "whole") == 0
    with monkeypatch.context() as m:
        interrupt_in(m, stage, 2)
        assert (run("autoencoder", tmp_path / "r") or run("diffusion", tmp_path / "r")) == 130
    assert f"train {stage} --recipe shapes --resume" in capsys.readouterr().err
    assert run(stage, tmp_path / "r", "--resume") == 0
    if stage == "autoencoder":
        assert run("diffusion", tmp_path / "r") == 0
    ours, whole = weights(tmp_path / "r"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[k], whole[k]) for k in whole)
    assert (tmp_path / "r/log.jsonl").read_text() == (tmp_path / "whole/log.jsonl").read_text()


def test_the_diffusion_model_waits_for_a_finished_autoencoder(tmp_path, monkeypatch, capsys):
    assert run("diffusion", tmp_path / "r") == 2
    assert "train autoencoder --recipe shapes" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    with monkeypatch.context() as m:
        interrupt_in(m, "autoencoder", 2)
        assert run("autoencoder", tmp_path / "r") == 130
    assert run("diffusion", tmp_path / "r") == 2
    assert "not finished" in capsys.readouterr().err
    assert not (tmp_path / "r" / "diffusion").exists()


def test_steps_may_be_fewer_than_the_recipe_has(tmp_path):
    assert run("autoencoder", tmp_path / "r", "--steps", 2) == 0
    assert run("diffusion", tmp_path / "r", "--steps", 3) == 0
    assert len((tmp_path / "r" / "log.jsonl").read_text().splitlines()) == 5


def test_a_resumed_stage_keeps_its_steps(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as m:
        interrupt_in(m, "autoencoder", 2)
        assert run("autoencoder", tmp_path / "r", "--steps", 5) == 130
    capsys.readouterr()
    assert run("autoencoder", tmp_path / "r", "--steps", 9, "--resume") == 2
    assert "steps 5, not 9" in capsys.readouterr().err
    assert run("autoencoder", tmp_path / "r", "--resume") == 0
    assert len((tmp_path / "r" / "log.jsonl").read_text().splitlines()) == 5


def test_what_is_there_is_never_overwritten(tmp_path, capsys):
    assert run("autoencoder", tmp_path / "r") == 0
    log = (tmp_path / "r" / "log.jsonl").read_text()
    assert run("autoencoder", tmp_path / "r") == 2
    assert "--resume" in capsys.readouterr().err
    assert run("diffusion", tmp_path / "r", recipe="other") == 2
    assert "name another folder" in capsys.readouterr().err
    assert (tmp_path / "r" / "log.jsonl").read_text() == log


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert run("autoencoder", tmp_path) == 2
    assert "holds no training" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--recipe", "mnist"), "'mnist' is unknown"),
        (("--recipe", "shapes", "--steps", "1"), "at least 2, found 1"),
        (("--recipe", "shapes", "--seed", "-1"), "from 0 to 2**32 - 1, found -1"),
        (("--recipe", "shapes", "--resume"), "no run to resume"),
    ],
)
def test_bad_input_is_told_in_a_line_and_writes_nothing(tmp_path, capsys, arguments, told):
    out = tmp_path / "r"
    assert cli.main(["train", "autoencoder", *arguments, "--out", str(out)]) == 2
    assert told in capsys.readouterr().err and not out.exists()
