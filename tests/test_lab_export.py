"""What is stored of a notebook that was run, and what its page holds: no kernel, no browser."""

import base64
import json
import re

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ldm_edu.film import Film, film_state
from ldm_edu.lab import export
from ldm_edu.lab.execute import WIDGET, storable
from ldm_edu.lab.export import STATE, page
from ldm_edu.lab.widgets import stills_html

TEXT = """# Noise & more

Here $\\beta_t < 1$, and

$$\\sqrt{1 - \\beta_t}$$

costs `$5`. See [next](02_next.ipynb) and [the paper](https://arxiv.org/abs/2006.11239).
"""


@pytest.fixture
def film() -> Film:
    frames = torch.arange(3 * 3 * 4 * 4).view(3, 3, 4, 4).to(torch.uint8)
    return Film(frames, ["a", "b </script>", "c"], "Grey squares.", "A caption.")


@pytest.fixture
def book(film):
    """As nbclient leaves it: a film, two widgets that need a kernel, and a picture."""
    state = film_state(film)
    sheet = base64.b64encode(state.pop("sheet")).decode()
    widgets = {
        "film": {
            "model_name": "AnyModel",
            "state": state | {"_esm": "export default {}", "caption": film.caption},
            "buffers": [{"encoding": "base64", "path": ["sheet"], "data": sheet}],
        },
        "button": {"model_name": "FileUploadModel", "state": {"description": "Choose"}},
        "painter": {"model_name": "AnyModel", "state": {"_esm": "export default {}"}},
    }
    shown = [
        {WIDGET: {"model_id": "film"}, "text/plain": "Film", "text/html": stills_html(film)},
        {WIDGET: {"model_id": "button"}, "text/plain": "A button <here>"},
        {
            WIDGET: {"model_id": "painter"},
            "text/plain": "A painter",
            "text/html": '<img alt="A veil" src="data:,">',
        },
        {"text/plain": "Figure", "text/html": '<img alt="A dot" src="data:,">'},
    ]
    cells = [new_markdown_cell(TEXT)]
    for data in shown:
        output = new_output("display_data", data=data)
        cells.append(new_code_cell("show()", outputs=[output], execution_count=1))
        cells[-1].metadata["execution"] = {"iopub.status.idle": "2026"}
    return new_notebook(cells=cells, metadata={"widgets": {STATE: {"state": widgets}}})


def test_no_widget_and_no_time_is_stored(book):
    text = nbformat.writes(storable(book))
    assert "widget" not in text
    assert "2026" not in text
    assert "Stills: a; b" in text
    assert set(json.loads(text)["metadata"]) == {"kernelspec", "language_info"}


def test_the_page_holds_the_film_with_its_state(book, film):
    html = page(book, "noise")
    states = re.findall(r'<script type="application/json">(.*?)</script>', html)
    assert len(states) == 1
    state = json.loads(states[0])
    assert base64.b64decode(state.pop("sheet")) == film_state(film)["sheet"]
    assert state.pop("caption") == "A caption."
    assert state == {k: v for k, v in film_state(film).items() if k != "sheet"}
    assert '<div class="stage"></div><noscript><figure' in html


def test_of_what_needs_a_kernel_the_still_or_the_text_is_shown_and_pictures_stay(book):
    html = page(book, "noise")
    assert re.search(r'<img alt="A veil" src="data:,"/?>', html)
    assert "A painter" not in html
    assert "<em>A button &lt;here&gt;</em>" in html
    assert re.search(r'<img alt="A dot" src="data:,"/?>', html)


def test_formulas_are_mathml_and_links_lead_to_pages(book):
    html = page(book, "noise")
    assert len(re.findall(r"<math[^>]*>", html)) == 2
    assert "<msqrt>" in html
    assert "<code>$5</code>" in html
    assert 'href="02_next.html"' in html
    assert 'href="https://arxiv.org/abs/2006.11239"' in html


def test_answers_are_not_among_the_pages(book):
    book.cells.append(new_markdown_cell("In [answers](solutions/noise.py)."))
    html = page(book, "noise")
    assert "In answers." in html and "solutions" not in html


@pytest.mark.parametrize(
    ("formula", "spaces"), [("\\log q", 1), ("\\sin(x)", 0), ("\\cos^2 x", 0), ("x", 0)]
)
def test_a_function_does_not_touch_what_it_is_of(formula, spaces):
    html = page(new_notebook(cells=[new_markdown_cell(f"Is ${formula}$")]), "a")
    assert html.count("<mspace") == spaces


def test_pages_have_a_list_of_them(tmp_path, monkeypatch):
    def run(path):
        return new_notebook(cells=[new_markdown_cell(f"# The {path.stem[3:]}\n\nText.")])

    monkeypatch.setattr(export, "run", run)
    export.main(["--out", str(tmp_path), "03_unet.ipynb"])
    assert [file.name for file in tmp_path.iterdir()] == ["03_unet.html"]
    export.main(["--out", str(tmp_path), "03_unet.ipynb", "04_price.ipynb"])
    html = (tmp_path / "index.html").read_text()
    for name, title in (("03_unet", "03 The unet"), ("04_price", "04 The price")):
        assert f'<a href="{name}.html">{title}</a>' in html
        assert (tmp_path / f"{name}.html").is_file()


def test_nothing_in_the_page_is_fetched(book):
    html = page(book, "noise")
    assert "default-src 'none'" in html
    fetched = re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', html)
    assert all(address.startswith("data:") for address in fetched), fetched
    assert not re.search(r'import\s*\(?["\']https?:|url\(["\']?https?:', html)


def test_slides_are_a_page_whose_cells_say_where_they_begin(book):
    book.cells[0].metadata["slideshow"] = {"slide_type": "slide"}
    html = page(book, "noise", slides=True)
    assert html.count("celltag_slide") >= 1
    assert "slide-bar" in html
    assert "slide-bar" not in page(new_notebook(cells=[new_markdown_cell("# A")]), "a")
