"""Notebooks as web pages that need nothing else, films alive in them: `make html`.

    python -m ldm_edu.lab.export --out site notebooks/*.ipynb
    python -m ldm_edu.lab.export --out slides --slides notebooks/*.ipynb

Each notebook is run, and its films are written into the page with their script. Formulas become
MathML, which browsers draw themselves. Of a widget that needs a kernel, its still or its
sentence is shown.
"""

import argparse
import re
import sys
from html import escape
from pathlib import Path

from jinja2 import DictLoader, pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from ldm_edu.film import asset, stage
from ldm_edu.images import write_atomic
from ldm_edu.lab.execute import WIDGET, run

STATE = "application/vnd.jupyter.widget-state+json"
# latex2mathml sets "log q" as "logq"; before a bracket or with an exponent nothing is missing
FUNCTION = re.compile(
    r"(?<!<msup>)(?<!<msub>)(<mi>(?:log|exp|sin|cos)</mi>)(?!<mo[^>]*>&#x00028;|</)"
)


class _Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML, and links to notebooks as links to pages."""

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith("solutions"):  # not among the pages
            return text
        page = url.removesuffix(".ipynb") + ".html" if url.endswith(".ipynb") else url
        return super().link(text, page, title)


def _mathml(body: str, display: str) -> str:
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', convert(body.strip(), display=display))


class PageExporter(HTMLExporter):
    """nbconvert's page, but with nothing in it that is fetched."""

    def __init__(self, **options: object):
        loader = DictLoader({"page.html.j2": asset("page.html.j2")})
        super().__init__(extra_loaders=[loader], template_file="page.html.j2", **options)

    @pass_context
    def markdown2html(self, context: object, source: str) -> str:
        """Render Markdown; nbconvert calls this as a filter."""
        renderer = _Renderer(escape=False, anchor_link_text="")
        return MarkdownWithMath(renderer=renderer).render(source)


def page(book: NotebookNode, name: str, slides: bool = False) -> str:
    """An executed notebook, with its widgets' state, as one HTML page.

    With `slides`, the page shows one slide at a time; they begin at the cells marked so.
    """
    states = book.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for cell in book.cells:
        if cell.metadata.get("slideshow", {}).get("slide_type") == "slide":
            cell.metadata.setdefault("tags", []).append("slide")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            view = data.pop(WIDGET, None)
            if view is not None:
                data["text/html"] = _alive(states.get(view["model_id"], {}), data)
    exporter = PageExporter()
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    resources = {
        "metadata": {"name": name},
        "page_css": asset("film.css") + (asset("slides.css") if slides else ""),
        "page_scripts": [asset("film.js") + asset("film_page.js")],
    }
    if slides:
        resources["page_scripts"].append(asset("slides.js"))
    body, _ = exporter.from_notebook_node(book, resources)
    return body


def _alive(model: dict, data: dict) -> str:
    state = dict(model.get("state", {}))
    sheets = [b for b in model.get("buffers", []) if b["path"] == ["sheet"]]
    if not sheets:
        return data.get("text/html") or f"<p><em>{escape(data['text/plain'])}</em></p>"
    kept = {key: value for key, value in state.items() if not key.startswith("_")}
    kept["sheet"] = sheets[0]["data"]
    return (
        f'<figure class="film">{stage(kept)}<noscript>{data["text/html"]}</noscript></figure>'
    )


def main(arguments: list[str] | None = None) -> None:
    """Write a page for each notebook named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ldm_edu.lab.export")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("site"))
    parser.add_argument("--slides", action="store_true", help="one slide at a time")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    links = []
    for path in options.notebooks:
        target, book = options.out / f"{path.stem}.html", run(path)
        title = book.cells[0].source.splitlines()[0].lstrip("# ")
        links.append(f"* [{path.stem[:2]} {title}]({target.name})")
        write_atomic(target, page(book, path.stem, options.slides).encode())
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    if len(links) > 1:
        contents = new_notebook(
            cells=[new_markdown_cell("\n".join(["# Contents", "", *links]))]
        )
        write_atomic(options.out / "index.html", page(contents, "Contents").encode())


if __name__ == "__main__":
    main()
