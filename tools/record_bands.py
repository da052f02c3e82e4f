"""Record how a notebook's training goes with several seeds: its band of normal runs.

    python tools/record_bands.py notebooks/04_diffuse_in_pixels.ipynb --seeds 1 2 3 4 5 6

Runs the notebook's own cells, up to the one that loads the band, once a seed, with that seed in
place of the 0 of its line `seed = 0`. They have to leave the loss of each step in `curve`.
Writes ldm_edu/assets/band_NN.json.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import nbformat

from ldm_edu.errors import InputError
from ldm_edu.images import write_atomic
from ldm_edu.lab.bands import Band, as_json, band_of, file_name

ASSETS = Path(__file__).parent.parent / "ldm_edu" / "assets"
SEED = "seed = 0"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    options = parser.parse_args(arguments)
    if os.environ.get("LDM_EDU_SMOKE"):
        parser.error("LDM_EDU_SMOKE is set: its short trainings are no band")
    band = record(options.notebook, options.seeds)
    print(write_atomic(ASSETS / file_name(options.notebook.name[:2]), as_json(band).encode()))


def record(notebook: Path, seeds: Sequence[int]) -> Band:
    """Run the notebook's training once a seed. Raises InputError where it has no such cells."""
    cells = training_cells(notebook)
    curves = [curve_of(cells, seed) for seed in seeds]
    command = f"python tools/record_bands.py {notebook.parent.name}/{notebook.name} --seeds "
    return band_of(curves, seeds, command + " ".join(map(str, seeds)))


def training_cells(notebook: Path) -> list[str]:
    """The sources of the code cells before the one that loads the band."""
    book = nbformat.read(notebook, as_version=4)
    sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
    ends = [k for k, source in enumerate(sources) if "load_band(" in source]
    if not ends:
        raise InputError(f"{notebook} loads no band")
    cells = sources[: ends[0]]
    if sum(source.splitlines().count(SEED) for source in cells) != 1:
        raise InputError(f"{notebook} needs one line {SEED!r} before it loads its band")
    return cells


def curve_of(cells: list[str], seed: int) -> list[float]:
    """The loss of each step when the cells are run with this seed; what they print is not."""
    space = {"__name__": "__main__"}
    for source in cells:
        lines = [f"seed = {seed}" if line == SEED else line for line in source.splitlines()]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            exec(compile("\n".join(lines), "<cell>", "exec"), space)
    print(f"seed {seed}: {len(space['curve'])} steps", file=sys.stderr, flush=True)
    return space["curve"]


if __name__ == "__main__":
    main()
