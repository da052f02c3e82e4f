"""The command line as a user meets it."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from ldm_edu import (
    Autoencoder,
    AutoencoderConfig,
    LatentDiffusion,
    NoiseSchedule,
    UNet,
    UNetConfig,
    pretrained,
)
from ldm_edu.cli import main
from ldm_edu.data import shapes
from ldm_edu.images import image_grid, save_png, to_uint8


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    autoencoder = AutoencoderConfig(
        latent_channels=4, channels=(8, 8), blocks=1, patch=2, groups=4
    )
    unet = UNetConfig(4, 4, channels=(8, 8), blocks=1, groups=4)
    LatentDiffusion(Autoencoder(autoencoder), UNet(unet), NoiseSchedule()).save(tmp_path / "m")
    return tmp_path / "m"


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    assert "quickstart" in capsys.readouterr().out


def test_unknown_command_exits_with_2():
    with pytest.raises(SystemExit) as done:
        main(["paint"])
    assert done.value.code == 2


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "heun", "plms"])
def test_sample_writes_a_grid(model, tmp_path, sampler):
    out = tmp_path / "grid.png"
    arguments = ["sample", str(model), "--out", str(out), "--count", "4", "--steps", "2"]
    assert main([*arguments, "--sampler", sampler]) == 0
    assert Image.open(out).width > 4 * 32


def test_sample_draws_as_the_library_does_unless_told_otherwise(model, tmp_path):
    for name, options in {"a": [], "b": ["--sampler", "dpm++", "--steps", "20"]}.items():
        out = str(tmp_path / f"{name}.png")
        assert main(["sample", str(model), "--out", out, "--count", "2", *options]) == 0
    x = to_uint8(LatentDiffusion.load(model).sample(2))
    save_png(tmp_path / "c.png", image_grid(x, 2, scale=128 // 32))
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b == c


def test_sample_takes_a_shipped_name(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "_PACKAGE", tmp_path / "ldm_edu")
    (tmp_path / "data" / "weights").mkdir(parents=True)
    model.rename(tmp_path / "data" / "weights" / "shapes")
    out = tmp_path / "grid.png"
    assert main(["sample", "shapes", "--out", str(out), "--count", "1", "--steps", "1"]) == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--count", "0"], "n must be at least 1, found 0"),
        (["--steps", "0"], "steps must be an integer from 1 to T = 1000, found 0"),
        (["--sampler", "dice"], "found 'dice'"),
    ],
)
def test_sample_with_bad_numbers(model, tmp_path, capsys, extra, message):
    out = tmp_path / "grid.png"
    assert main(["sample", str(model), "--out", str(out), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_sample_from_nothing_or_a_pickle(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "none"), "--out", str(tmp_path / "x.png")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    torch.save({}, tmp_path / "model.pt")
    assert main(["sample", str(tmp_path / "model.pt"), "--out", str(tmp_path / "x.png")]) == 2
    assert "pickle" in capsys.readouterr().err


@pytest.fixture
def toys(monkeypatch):
    """Few shapes, and no feature network, which may not be installed."""
    from ldm_edu import data, evaluate

    space, load = {"toy": lambda x: x[:, :, ::8, ::8].flatten(1)}, data.load
    few = {"train": shapes.make(24, 1, "never"), "test": shapes.make(8, 2)}
    monkeypatch.setattr(evaluate, "spaces_of", lambda judge: space)
    monkeypatch.setattr(
        data,
        "load",
        lambda name, split, root: few[split] if name == "shapes" else load(name, split, root),
    )


def test_evaluate_prints_tables_and_writes_their_numbers(model, tmp_path, capsys, toys):
    out = tmp_path / "numbers.json"
    arguments = ["evaluate", str(model), "--data", "shapes", "--count", "10", "--steps", "1"]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("shapes: N = 10 in every row; steps 1, seed 0\n")
    found = json.loads(out.read_text())["likeness"]["toy"]["samples"]["frechet"]
    assert f"{found:.4g}" in printed


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data", "shapes", "--count", "1"], "count must be from 10 to 12"),
        ([], "does not say what it was trained on: give --data"),
        (["--data", "shapes", "--out", "absent/x.json"], "there is no folder absent"),
        (["--data", "celeba64", "--root", "absent"], "does not exist"),
    ],
)
def test_evaluate_says_at_once_what_is_missing(model, capsys, toys, extra, message):
    assert main(["evaluate", str(model), *extra]) == 2
    assert message in capsys.readouterr().err


def test_train_classifier_tells_what_the_judge_is_right_about(tmp_path, monkeypatch, capsys):
    from ldm_edu import data, judges
    from ldm_edu.classifier import ClassifierConfig
    from ldm_edu.data.captions import CLASSES

    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
    dataset = data.ImageDataset("cifar10", "x", images, [""] * 20, torch.arange(20) % 10)
    recipe = judges.JudgeRecipe(ClassifierConfig(CLASSES, True, channels=(4, 4)), steps=2)
    monkeypatch.setattr(data, "load", lambda *where: dataset)
    monkeypatch.setitem(judges.JUDGES, "cifar10", recipe)
    arguments = ["train", "classifier", "--recipe", "cifar10", "--out", str(tmp_path / "j")]
    assert main([*arguments, "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    assert "automobile           balanced" in printed and "of 18" in printed
    assert len((tmp_path / "j" / "log.jsonl").read_text().splitlines()) == 3
    assert main(arguments) == 2
    assert "add --resume" in capsys.readouterr().err


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "ldm_edu.cli", "quickstart", "--minutes", "0", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "ldm-edu: minutes must be more than 0, found 0\n"
