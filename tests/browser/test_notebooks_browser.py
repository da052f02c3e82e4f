"""Films in JupyterLab and in an exported page, in a real browser, by keyboard and mouse."""

from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from driving import CANVAS, MARKS, SHUT, slider

pytestmark = MARKS
WIDGETS = 2

# A notebook of both kinds of film: one with dials over charts, one of pixels.
BOOK = """
import torch
from ldm_edu import NoiseSchedule
from ldm_edu.film import Film
from ldm_edu.lab.noising import noising_film
from ldm_edu.lab.pictures import drawing
from ldm_edu.lab.widgets import FilmWidget

x0 = drawing("a large red ring in the center on a white background")
schedules = {kind: NoiseSchedule(kind) for kind in ("linear", "cosine")}
generator = torch.Generator().manual_seed(0)
FilmWidget(noising_film(x0, torch.randn(x0.shape, generator=generator), schedules))
---
frames = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=generator)
FilmWidget(Film(frames, list("abcde"), "Coloured noise.", "Five frames.", name="Letter"))
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lab") / "films.ipynb"
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in BOOK.split("---")]
    cells.insert(0, nbformat.v4.new_markdown_cell("# Films\n\nNoise: $\\sqrt{1-\\beta_t}$."))
    kernel = {"name": "python3", "display_name": "Python 3"}  # else JupyterLab asks for one
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, path)
    return path


def test_the_keyboard_moves_the_noise_slider(page):
    canvas, t = page.locator("canvas.ldm-film-canvas").first, slider(page, "Noise level t")
    t.focus()
    page.keyboard.press("Home")
    before = canvas.evaluate(CANVAS)
    assert t.get_attribute("aria-valuetext").startswith("t = 0,")
    page.keyboard.press("ArrowRight")
    assert t.get_attribute("aria-valuetext").startswith("t = 50,")
    assert canvas.evaluate(CANVAS) != before
    page.keyboard.press("End")
    assert t.get_attribute("aria-valuetext").startswith("t = 1000,")
    page.keyboard.press("Home")
    assert canvas.evaluate(CANVAS) == before


def test_a_dial_changes_the_schedule_and_keeps_t(page):
    canvas = page.locator("canvas.ldm-film-canvas").first
    t, schedule = slider(page, "Noise level t"), slider(page, "Schedule")
    t.focus()
    page.keyboard.press("Home")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    linear, seen = canvas.evaluate(CANVAS), t.get_attribute("aria-valuetext")
    assert (seen.split(",")[0], schedule.get_attribute("aria-valuetext")) == (
        "t = 500",
        "linear",
    )
    schedule.focus()
    page.keyboard.press("ArrowRight")
    assert schedule.get_attribute("aria-valuetext") == "cosine"
    assert t.get_attribute("aria-valuetext").startswith("t = 500,")
    assert t.get_attribute("aria-valuetext") != seen
    assert canvas.evaluate(CANVAS) != linear
    page.keyboard.press("ArrowLeft")
    assert canvas.evaluate(CANVAS) == linear


def test_the_mouse_moves_the_other_film_and_this_one_stays(page):
    first, second = (page.locator("canvas.ldm-film-canvas").nth(k) for k in (0, 1))
    letter = slider(page, "Letter")
    letter.focus()
    page.keyboard.press("Home")
    still, before = first.evaluate(CANVAS), second.evaluate(CANVAS)
    box = letter.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert letter.get_attribute("aria-valuetext") == "c"
    assert second.evaluate(CANVAS) != before
    page.get_by_role("button", name="One frame on: Letter").click()
    assert letter.get_attribute("aria-valuetext") == "d"
    assert first.evaluate(CANVAS) == still


def test_play_runs_to_the_end_of_the_shot_and_stays_in_it(page):
    letter = slider(page, "Letter")
    letter.focus()
    page.keyboard.press("End")
    page.get_by_role("button", name="Play: Letter").click()
    page.get_by_role("button", name="Pause: Letter").wait_for()
    page.get_by_role("button", name="Play: Letter").wait_for()
    assert letter.get_attribute("aria-valuetext") == "e"
    t, schedule = slider(page, "Noise level t"), slider(page, "Schedule")
    t.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Play: Noise level t").click()
    page.get_by_role("button", name="Play: Noise level t").wait_for()
    assert t.get_attribute("aria-valuetext").startswith("t = 1000,")
    assert schedule.get_attribute("aria-valuetext") == "linear"


def test_nothing_is_wider_than_the_page(page):
    for k in range(2):
        box = page.locator(".ldm-film").nth(k).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1200


def test_the_exported_page_draws_formulas_and_describes_its_films(exported):
    assert exported.locator("math msqrt").count() == 1
    assert exported.locator("canvas.ldm-film-canvas").first.get_attribute("role") == "img"
    assert "histogram" in exported.locator("canvas.ldm-film-canvas").first.get_attribute(
        "aria-label"
    )
    assert exported.locator(".ldm-film-caption").nth(1).inner_text() == "Five frames."


def test_films_go_on_when_the_kernel_has_gone(lab_page):
    lab_page.evaluate(SHUT)
    lab_page.wait_for_timeout(500)
    letter = slider(lab_page, "Letter")
    letter.focus()
    lab_page.keyboard.press("Home")
    before = lab_page.locator("canvas.ldm-film-canvas").nth(1).evaluate(CANVAS)
    lab_page.keyboard.press("ArrowRight")
    assert letter.get_attribute("aria-valuetext") == "b"
    assert lab_page.locator("canvas.ldm-film-canvas").nth(1).evaluate(CANVAS) != before


@contextmanager
def deck(browser, book, height):
    """The book as two slides in a window of that height, its films ready."""
    from ldm_edu.lab.execute import run
    from ldm_edu.lab.export import page as as_page

    executed = run(book)
    for cell in executed.cells[:2]:
        cell.metadata["slideshow"] = {"slide_type": "slide"}
    target = book.with_name("slides.html")
    target.write_text(as_page(executed, "slides", slides=True), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": height})
    page = context.new_page()
    page.goto(target.as_uri())
    page.wait_for_function("() => document.querySelectorAll('[data-ready]').length === 2")
    yield page
    context.close()


def test_slides_turn_and_leave_the_arrow_keys_to_sliders(browser, book):
    with deck(browser, book, 700) as page:
        place, t = page.locator(".slide-place"), slider(page, "Noise level t")
        assert place.inner_text() == "1 / 2"
        assert page.get_by_role("heading", name="Films").is_visible()
        assert t.count() == 0  # hidden
        page.keyboard.press("PageDown")
        assert place.inner_text() == "2 / 2"
        assert not page.get_by_role("heading", name="Films").is_visible()
        t.focus()
        page.keyboard.press("ArrowRight")
        assert t.get_attribute("aria-valuetext").startswith("t = 50,")
        assert place.inner_text() == "2 / 2"
        page.get_by_role("button", name="Slide before").click()
        assert place.inner_text() == "1 / 2"


def test_a_clicker_scrolls_through_a_long_slide_also_from_a_film(browser, book):
    bottom = "() => scrollY + innerHeight >= document.documentElement.scrollHeight - 1"
    on_two = "() => document.querySelector('.slide-place').textContent === '2 / 2'"
    with deck(browser, book, 400) as page:
        place, t = page.locator(".slide-place"), slider(page, "Noise level t")
        page.evaluate("() => { location.hash = '#2'; }")
        page.wait_for_function(on_two)
        assert not page.evaluate(bottom)
        t.focus()
        said = t.get_attribute("aria-valuetext")
        page.evaluate("() => scrollTo(0, 0)")
        for _ in range(9):
            page.keyboard.press("PageDown")
        assert page.evaluate(bottom) and place.inner_text() == "2 / 2"
        assert t.get_attribute("aria-valuetext") == said
        page.keyboard.press("PageUp")
        assert place.inner_text() == "2 / 2" and not page.evaluate(bottom)
        for _ in range(9):
            page.keyboard.press("PageUp")
        assert place.inner_text() == "1 / 2"
