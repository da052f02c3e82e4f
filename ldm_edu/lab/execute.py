"""Run notebooks and store what they print and show: `make notebooks`.

    python -m ldm_edu.lab.execute notebooks/*.ipynb

Each is run from top to bottom by a fresh kernel, in its own folder. Stored are text, and
pictures as HTML; the state of widgets is not (it is large, and an unread one is not trusted).
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from ldm_edu.images import write_atomic

WIDGET = "application/vnd.jupyter.widget-view+json"
LIMIT = 600  # seconds a cell


def run(path: Path) -> NotebookNode:
    """The notebook at `path`, executed, its widgets' state in the metadata.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    book = nbformat.read(path, as_version=4)
    NotebookClient(
        book,
        timeout=LIMIT,
        kernel_name="python3",
        store_widget_state=True,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return book


def storable(book: NotebookNode) -> NotebookNode:
    """`book` without what does not belong in git: widgets, versions, streams in pieces."""
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
    nbformat.validate(book)
    return book


def main(arguments: list[str] | None = None) -> None:
    """Execute the notebooks named on the command line, in place."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ldm_edu.lab.execute")
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args(arguments).notebooks:
        start = time.monotonic()
        book = storable(run(path))
        write_atomic(path, (nbformat.writes(book) + "\n").encode())
        seconds, size = time.monotonic() - start, path.stat().st_size / 1000
        print(f"{path}: {seconds:.0f} s, {size:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
