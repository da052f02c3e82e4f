"""The command line as a user meets it."""

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
)
from ldm_edu.cli import main


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


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "ldm_edu.cli", "quickstart", "--minutes", "0", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "ldm-edu: minutes must be more than 0, found 0\n"
