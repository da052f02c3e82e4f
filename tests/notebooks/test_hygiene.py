"""What every notebook of the course keeps to; that it runs is nbval's part (`make test`)."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
import pytest

from ldm_edu.lab.exercises import EXERCISES

FOLDER = Path(__file__).parents[2] / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "nbval-skip"}
LIMIT = 500_000  # bytes
CHECK = re.compile(r'^check\("(\w+)", \1\)$', re.MULTILINE)
FORBIDDEN = {
    "the network": r"https?://|urllib|requests\.|!pip|%pip|wget|hf_hub",
    "a GPU by name": r"\.cuda\(|[\"']cuda",
    "a GPU where there is one": r"load_pretrained\((?!\"\w+\", device=\"cpu\"\))",
    "a private name": r"ldm_edu[\w.]* import .*\b_\w|\b(ldm_edu|diffusion|samplers)\.\w*\._\w",
    "a `;` at the end, which nbval does not honour": r";[ \t]*$",
    "plt.show, which has no alternative text": r"plt\.show|pyplot",
    "a star import": r"import \*",
    "a path of one machine": r"[\"'](/home|/tmp|/work|/root|C:)",
}


class _Pictures(HTMLParser):
    def __init__(self):
        super().__init__()
        self.alts = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


def pictures(html: str) -> list[str | None]:
    parser = _Pictures()
    parser.feed(html)
    return parser.alts


@pytest.fixture(params=BOOKS, ids=lambda path: path.stem)
def book(request):
    return nbformat.read(request.param, as_version=4)


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose(book) -> str:
    return "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def headings(book) -> list[tuple[int, str]]:
    text = re.sub(r"```.*?```", "", prose(book), flags=re.DOTALL)
    return [(len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)$", text, re.MULTILINE)]


def outputs(book):
    return [output for cell in code(book) for output in cell.outputs]


def test_there_are_notebooks_and_each_is_valid(book):
    nbformat.validate(book)
    assert set(book.metadata) == {"kernelspec", "language_info"}


def test_links_lead_to_files_that_are_there(book):
    targets = re.findall(r"\]\(([^)#]+)", prose(book))
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (FOLDER / target).exists()] == []


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_the_file_is_small(path):
    assert path.stat().st_size <= LIMIT


def test_every_cell_was_run_in_order_from_a_fresh_kernel(book):
    # nbval compares nothing in a cell that has no count
    counts = [cell.execution_count for cell in code(book)]
    assert counts == list(range(1, len(counts) + 1))


def test_nothing_failed_and_nothing_warned(book):
    assert all(output.output_type != "error" for output in outputs(book))
    assert all(output.get("name") != "stderr" for output in outputs(book))


def test_tags_are_those_of_nbval_and_most_cells_are_compared(book):
    tags = [set(cell.metadata.get("tags", [])) for cell in code(book)]
    assert all(tag <= TAGS for tag in tags)
    assert sum(not tag for tag in tags) >= 0.85 * len(tags)


def test_texts_hold_no_address_and_no_time(book):
    texts = [output.get("text", "") for output in outputs(book)]
    texts += [output.get("data", {}).get("text/plain", "") for output in outputs(book)]
    for text in texts:
        assert not re.search(r"\b0x[0-9a-f]{6,}|\d(ms| s\b| seconds)", text), text


def test_there_is_one_title_and_no_heading_is_skipped(book):
    levels = [level for level, _ in headings(book)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_it_opens_and_closes_as_all_do(book):
    opening = book.cells[0].source
    for start in ("**You will** ", "**You will learn** ", "**You need** ", "**It takes** "):
        assert start in opening
    assert [text for level, text in headings(book) if level == 2][-2:] == [
        "Try it yourself",
        "Read on",
    ]


def test_every_picture_is_described(book):
    for output in outputs(book):
        data = output.get("data", {})
        assert not any(kind.startswith("image/") for kind in data), (
            "show it by lab.figures.show"
        )
        assert not any("widget" in kind for kind in data), "make notebooks leaves widgets out"
        alts = pictures(data.get("text/html", ""))
        assert all(alt and len(alt) > 15 for alt in alts), alts
    assert all(re.findall(r"!\[(.*?)\]\(", prose(book)))
    assert all(pictures(prose(book)))


def test_cells_are_small(book):
    lines = [
        sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in code(book)
    ]
    assert median(lines) <= 6
    assert max(lines) <= 30


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_code_uses(book, what):
    for cell in code(book):
        found = re.search(FORBIDDEN[what], cell.source, re.MULTILINE)
        assert not found, f"{what}: {found[0]!r} in\n{cell.source}"


def test_it_has_exercises_that_are_untouched(book):
    names = [name for cell in code(book) for name in CHECK.findall(cell.source)]
    assert 2 <= len(names) <= 4
    for cell in code(book):
        for name in CHECK.findall(cell.source):
            assert f"def {name}(" in cell.source
            assert "raise NotImplementedError" in cell.source
            assert f'# hint("{name}", 1)' in cell.source
            assert cell.outputs[0].text == f"{name}: not attempted yet.\n"


def test_every_exercise_is_in_one_notebook():
    sources = [
        cell.source for path in BOOKS for cell in code(nbformat.read(path, as_version=4))
    ]
    names = [name for source in sources for name in CHECK.findall(source)]
    assert len(set(names)) == len(names)
    assert set(names) <= set(EXERCISES)


def test_slides_begin_at_headings_and_an_answer_is_not_on_its_exercise_s_slide(book):
    def begins(cell):
        return cell.metadata.get("slideshow", {}).get("slide_type") == "slide"

    for before, cell in pairwise(book.cells):
        if cell.cell_type == "markdown" and re.match("##? ", cell.source):
            assert begins(cell), cell.source
        if before.cell_type == "code" and "\ncheck(" in before.source:
            assert begins(cell), cell.source
