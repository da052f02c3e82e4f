"""The command line as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
    commands,
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
        (["--count", "0"], "n must be a whole number of at least 1, found 0"),
        (["--steps", "0"], "steps must be an integer from 1 to T = 1000, found 0"),
        (["--sampler", "dice"], "found 'dice'"),
        (["--eta", "0.5"], "only the sampler 'ddim' takes an eta, found 0.5"),
        (["--device", "abacus"], "device 'abacus' is not available"),
    ],
)
def test_sample_with_bad_numbers(model, tmp_path, capsys, extra, message):
    out = tmp_path / "grid.png"
    assert main(["sample", str(model), "--out", str(out), *extra]) == 2
    assert capsys.readouterr().err.startswith("ldm-edu: ") and not out.exists()
    assert main(["sample", str(model), "--out", str(out), *extra]) == 2
    assert message in capsys.readouterr().err


def test_sample_shows_its_steps_and_takes_what_ddim_takes(model, tmp_path, capsys):
    out = tmp_path / "grid.PNG"
    options = ["--sampler", "ddim", "--eta", "0.7", "--steps", "7", "--device", "cpu"]
    assert main(["sample", str(model), "--out", str(out), "--count", "2", *options]) == 0
    assert "sampling: 100%" in (told := capsys.readouterr().err) and "7/7" in told
    x = LatentDiffusion.load(model).sample(2, sampler="ddim", eta=0.7, steps=7)
    save_png(tmp_path / "b.png", image_grid(to_uint8(x), 2, scale=128 // 32))
    assert out.read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.jpg", "name a file that ends in .png, found"),
        ("folder.png", "name a file that ends in .png, found"),
        ("absent/a.png", "there is no folder"),
    ],
)
def test_sample_says_where_it_cannot_write_before_it_loads(tmp_path, capsys, out, message):
    (tmp_path / "folder.png").mkdir()
    assert main(["sample", "no model", "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err


def test_sample_from_nothing_or_a_pickle(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "none"), "--out", str(tmp_path / "x.png")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    torch.save({}, tmp_path / "model.pt")
    assert main(["sample", str(tmp_path / "model.pt"), "--out", str(tmp_path / "x.png")]) == 2
    assert "pickle" in capsys.readouterr().err


@pytest.fixture
def toys(monkeypatch):
    """Few shapes, and no feature network, which may not be installed."""
    from ldm_edu import data

    space, load = {"toy": lambda x: x[:, :, ::8, ::8].flatten(1)}, data.load
    few = {"train": shapes.make(24, 1, "never"), "test": shapes.make(8, 2)}
    monkeypatch.setattr(commands, "spaces_of", lambda judge: space)
    monkeypatch.setattr(
        data,
        "load",
        lambda name, split, root: few[split] if name == "shapes" else load(name, split, root),
    )


def test_evaluate_prints_tables_and_writes_their_numbers(model, tmp_path, capsys, toys):
    out, neighbours = tmp_path / "numbers.json", tmp_path / "neighbours.png"
    arguments = ["evaluate", str(model), "--data", "shapes", "--count", "10", "--steps", "1"]
    assert main([*arguments, "--out", str(out), "--neighbours", str(neighbours)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("shapes: N = 10 in every row; steps 1, seed 0\n")
    found = json.loads(out.read_text())["likeness"]["toy"]["samples"]["frechet"]
    assert f"{found:.4g}" in printed
    # pixels and one space, samples and their neighbours, each 128 pixels wide, 2 apart
    assert Image.open(neighbours).size == (8 * 130 - 2, 4 * 130 - 2)
    assert f"above their neighbours: {neighbours}" in printed


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data", "shapes", "--count", "1"], "count must be from 10 to 12"),
        ([], "does not say what it was trained on: give --data"),
        (["--data", "shapes", "--out", "absent/x.json"], "there is no folder absent"),
        (["--data", "shapes", "--out", "."], "--out: name a file that ends in .json, found ."),
        (["--neighbours", "a.jpg"], "--neighbours: name a file that ends in .png, found a.jpg"),
        (["--data", "celeba64", "--root", "absent"], "does not exist"),
        (["--data", "shapes", "--device", "abacus"], "device 'abacus' is not available here"),
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


def test_a_judge_is_trained_on_the_cpu(tmp_path, capsys):
    arguments = ["train", "classifier", "--recipe", "cifar10", "--out", str(tmp_path / "j")]
    assert main([*arguments, "--device", "cuda"]) == 2
    assert "a judge is trained on 'cpu', found 'cuda'" in capsys.readouterr().err


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    assert Path(__file__).parent.parent / "notebooks" == commands.NOTEBOOKS
    monkeypatch.setattr(commands, "NOTEBOOKS", tmp_path)
    (tmp_path / "00_start_here.ipynb").touch()
    return tmp_path / "00_start_here.ipynb"


def test_lab_opens_the_first_notebook_and_passes_the_rest_on(monkeypatch, notebook):
    asked = []
    jupyter = SimpleNamespace(main=asked.append)
    monkeypatch.setitem(sys.modules, "jupyterlab", SimpleNamespace(labapp=jupyter))
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", jupyter)
    assert main(["lab", "--no-browser", "--port", "8890"]) == 0
    assert asked == [[str(notebook), "--no-browser", "--port", "8890"]]


def test_lab_says_what_is_missing(monkeypatch, notebook, capsys):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    assert main(["lab"]) == 2
    assert "pip install 'ldm-edu[notebooks]'" in capsys.readouterr().err
    notebook.unlink()  # as in a wheel
    assert main(["lab"]) == 2
    assert f"there are no notebooks in {notebook.parent}" in capsys.readouterr().err


def test_options_that_nobody_knows_are_refused(capsys):
    with pytest.raises(SystemExit) as done:
        main(["evaluate", "shapes", "--no-browser"])
    assert done.value.code == 2
    assert "unrecognized arguments: --no-browser" in capsys.readouterr().err


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "ldm_edu.cli", "quickstart", "--minutes", "0", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "ldm-edu: minutes must be more than 0, found 0\n"
