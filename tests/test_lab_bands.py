"""Bands of normal runs: closed forms, what is said of a run, and how a band is recorded."""

import importlib.util
import math
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch

from ldm_edu.errors import InputError
from ldm_edu.lab.bands import (
    BLOCKS,
    LASTING,
    SHORTEST,
    Band,
    as_json,
    band_of,
    block_ends,
    block_means,
    draw_run,
    file_name,
    load_band,
    verdict,
)
from ldm_edu.lab.figures import subplots

ROOT = Path(__file__).parent.parent
RECORDED = sorted((ROOT / "ldm_edu" / "assets").glob("band_*.json"))


@pytest.mark.parametrize("count", [4, 16, 100, 800, 3000])
def test_blocks_are_short_at_first_and_lie_side_by_side(count):
    ends = block_ends(count)
    widths = [b - a for a, b in pairwise([0, *ends])]
    longest = max(SHORTEST, count // BLOCKS)
    assert widths[0] == SHORTEST and widths == sorted(widths)
    assert max(widths) <= longest and count - longest < ends[-1] <= count
    assert len(ends) < 2 * BLOCKS


def test_means_are_of_the_steps_between_ends_and_only_of_finished_blocks():
    losses = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0]
    assert block_means(losses, (2, 4, 7)).tolist() == [1.5, 3.5, 20.0]
    assert block_means(losses[:6], (2, 4, 7)).tolist() == [1.5, 3.5]
    assert len(block_means(losses[:1], (2, 4, 7))) == 0


def flat(level, count=40):
    return [level] * count


def test_the_band_of_flat_runs_is_their_mean_logarithm_and_three_deviations():
    runs = [flat(math.exp(a)) for a in (-1.0, 0.0, 1.0)]  # deviation 1 of the logarithm
    band = band_of(runs, (7, 8, 9), "a command")
    assert band.seeds == (7, 8, 9) and band.command == "a command"
    assert band.steps == block_ends(40)
    assert torch.allclose(torch.tensor(band.low), torch.tensor(math.exp(-3)), rtol=1e-3)
    assert torch.allclose(torch.tensor(band.high), torch.tensor(math.exp(3)), rtol=1e-3)


def test_the_deviation_is_averaged_with_the_neighbouring_blocks():
    runs = torch.ones(3, 40)
    runs[:, 20:24] *= torch.tensor([-1.0, 0.0, 1.0]).exp()[:, None]  # block 5 of 10
    reach = torch.tensor(band_of(runs, (1, 2, 3), "").high).log()
    wanted = torch.zeros(10)
    wanted[3:8] = 3 * (1 / 5) ** 0.5
    assert torch.allclose(reach, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("runs", "seeds"),
    [
        ([flat(1.0)] * 2, (1, 2)),
        ([flat(1.0)] * 3, (1, 2)),
        ([flat(1.0), flat(1.0), flat(1.0, 39)], (1, 2, 3)),
        ([flat(1.0), flat(1.0), flat(-1.0)], (1, 2, 3)),
        ([flat(1.0), flat(1.0), flat(math.nan)], (1, 2, 3)),
    ],
)
def test_what_makes_no_band_is_refused(runs, seeds):
    with pytest.raises(InputError):
        band_of(runs, seeds, "")


BAND = Band(steps=tuple(range(10, 101, 10)), low=(0.5,) * 10, high=(2.0,) * 10, seeds=(1,),
            command="")  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (flat(1.0, 100), "inside the band"),
        (flat(2.0, 100), "inside the band"),
        (flat(2.01, 100), "above the band from step 1 on"),
        (flat(0.49, 100), "below the band from step 1 on"),
        (flat(1.0, 40) + flat(3.0, 60), "above the band from step 41 on"),
        (
            flat(1.0, 40) + flat(3.0, 30) + flat(1.0, 30),
            "above the band from step 41 to step 70",
        ),
        (flat(1.0, 40) + flat(3.0, 20) + flat(1.0, 40), "inside the band"),
        (flat(3.0, 20) + flat(0.1, 20) + flat(1.0, 60), "inside the band"),
        (flat(1.0, 60) + flat(math.nan, 40), "above the band from step 61 on"),
        (flat(1.0, 60) + flat(math.inf, 40), "above the band from step 61 on"),
        # a shorter run: on its own steps only
        (flat(1.0, 10), "inside the band"),
        (flat(3.0, 29), "inside the band"),
        (flat(3.0, 30), "above the band from step 1 on"),
        (flat(3.0, 9), "too short to tell"),
    ],
)
def test_a_run_is_told_where_it_lies(losses, said):
    assert LASTING == 3
    assert verdict(losses, BAND) == said


def noisy(seed, factor=1.0):
    generator = torch.Generator().manual_seed(seed)
    falling = 0.1 + (-torch.arange(400) / 60).exp()
    return factor * falling * (0.3 * torch.randn(400, generator=generator)).exp()


def test_other_seeds_of_the_same_run_are_inside_and_other_runs_are_not():
    band = band_of([noisy(seed) for seed in range(1, 7)], range(1, 7), "")
    said = [verdict(noisy(seed), band) for seed in range(100, 140)]
    assert said.count("inside the band") >= 39
    assert verdict(noisy(0, factor=1.6), band).startswith("above the band")
    assert verdict(noisy(0, factor=0.6), band).startswith("below the band")
    assert verdict(noisy(0)[:8], band) == "inside the band"


def test_the_picture_holds_the_band_the_steps_and_the_means_of_blocks():
    _, axis = subplots()
    losses = flat(1.0, 20) + flat(1.5, 25)
    draw_run(axis, losses, BAND)
    steps, means = axis.lines
    assert list(steps.get_xdata()) == list(range(1, 46)) and list(steps.get_ydata()) == losses
    assert list(means.get_xdata()) == [5.5, 15.5, 25.5, 35.5]
    assert list(means.get_ydata()) == [1.0, 1.0, 1.5, 1.5]
    corners = axis.collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.5, 2.0)
    assert axis.get_yscale() == "log"


def test_a_notebook_without_a_band_is_told():
    with pytest.raises(InputError, match="'77'"):
        load_band("77")


# ---- what was recorded, and what records it


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_band_is_that_of_a_notebook_that_loads_it(path):
    band = load_band(path.stem.removeprefix("band_"))
    assert path.name == file_name(path.stem.removeprefix("band_"))
    assert path.stat().st_size < 5000
    assert all(a < b for a, b in pairwise([0, *band.steps]))
    assert all(0 < low < high for low, high in zip(band.low, band.high, strict=True))
    assert len(band.steps) == len(band.low) and len(band.seeds) >= 4
    tool, file, flag, *seeds = band.command.removeprefix("python ").split()
    assert (ROOT / tool).is_file() and flag == "--seeds"
    assert tuple(map(int, seeds)) == band.seeds
    assert 0 not in band.seeds  # the seed of the notebook as it stands is none of them
    assert f'load_band("{path.stem[-2:]}")' in (ROOT / file).read_text().replace('\\"', '"')


@pytest.fixture
def recorder(monkeypatch, tmp_path):
    path = ROOT / "tools" / "record_bands.py"
    if not path.exists():
        pytest.skip("tools/ is not beside the tests")
    spec = importlib.util.spec_from_file_location("record_bands", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ASSETS", tmp_path)
    monkeypatch.delenv("LDM_EDU_SMOKE", raising=False)
    return module


def notebook(folder, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells.insert(1, nbformat.v4.new_markdown_cell("seed = 0"))
    path = folder / "99_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


TRAINING = ("import math\nseed = 0", "curve = [math.exp(seed)] * 40\nprint(curve)")


def test_the_recorder_runs_the_cells_before_the_band_with_each_seed(recorder, tmp_path, capsys):
    path = notebook(tmp_path, *TRAINING, 'band = load_band("99")\n1 / 0')
    recorder.main([str(path), "--seeds", "1", "2", "3"])
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'band_99.json'}\n"
    band = recorder.record(path, (1, 2, 3))
    assert (tmp_path / "band_99.json").read_text() == as_json(band)
    runs = [flat(math.exp(seed)) for seed in (1, 2, 3)]
    command = f"python tools/record_bands.py {tmp_path.name}/99_small.ipynb --seeds 1 2 3"
    assert band == band_of(runs, (1, 2, 3), command)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (TRAINING, "loads no band"),
        (("curve = []", 'load_band("99")'), "one line 'seed = 0'"),
        (("seed = 0", *TRAINING, 'load_band("99")'), "one line 'seed = 0'"),
    ],
)
def test_a_notebook_that_cannot_be_recorded_is_refused(recorder, tmp_path, sources, said):
    with pytest.raises(InputError, match=said):
        recorder.record(notebook(tmp_path, *sources), (1, 2, 3))


def test_short_trainings_are_not_recorded(recorder, monkeypatch, capsys):
    monkeypatch.setenv("LDM_EDU_SMOKE", "1")
    with pytest.raises(SystemExit):
        recorder.main(["notebooks/04_diffuse_in_pixels.ipynb"])
    assert "LDM_EDU_SMOKE" in capsys.readouterr().err
