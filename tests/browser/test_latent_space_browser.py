"""Notebook 06 in JupyterLab and as an exported page: latents edited, mixed and noised."""

import shutil
from pathlib import Path

import pytest
from driving import CANVAS, MARKS, SHUT
from moving import ANSWER, DIFFERS, every_slider_moves

pytestmark = MARKS
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_look_inside_latent_space.ipynb"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    return Path(shutil.copy(NOTEBOOK, tmp_path_factory.mktemp("lab")))


@pytest.fixture(scope="module")
def widgets() -> int:
    return 5


def said(page, text: str) -> None:
    page.locator(".ldm-paint .ldm-film-caption").get_by_text(text).wait_for(timeout=ANSWER)


def test_each_slider_changes_its_picture_by_keyboard_and_mouse(page, widgets):
    assert every_slider_moves(page) == widgets


def test_each_direction_changes_the_faces_in_its_own_way(page):
    film = page.locator(".ldm-film").filter(
        has=page.get_by_role("slider", name="Direction", exact=True)
    )
    canvas = film.locator("canvas")
    film.get_by_role("slider", name="Amount", exact=True).press("End")
    dial = film.get_by_role("slider", name="Direction", exact=True)
    dial.press("Home")
    seen = {}
    for _ in range(5):
        seen[dial.get_attribute("aria-valuetext")] = canvas.evaluate(CANVAS)
        dial.press("ArrowRight")
    assert set(seen) == {"smile", "glasses", "man", "brightness", "random"}
    assert len(set(seen.values())) == 5


def test_the_page_tells_what_needs_a_kernel(exported):
    assert exported.get_by_text("(needs a running kernel)").count() == 1
    assert exported.locator(".ldm-paint").count() == 0


def test_noise_is_put_where_the_brush_was(lab_page):
    painter = lab_page.locator(".ldm-paint")
    veil, result = painter.locator(".ldm-paint-veil"), painter.locator(".ldm-paint-result")
    painter.get_by_role("button", name="Clear").click()
    veil.scroll_into_view_if_needed()
    box = veil.bounding_box()
    x, y, k = box["x"], box["y"], box["width"] / 64
    lab_page.mouse.move(x + 10 * k, y + 12 * k)
    lab_page.mouse.down()
    lab_page.mouse.move(x + 54 * k, y + 12 * k, steps=6)
    lab_page.mouse.up()
    canvas, before = result.element_handle(), result.evaluate(CANVAS)
    painter.get_by_role("textbox", name="Noise level t").fill("800")
    painter.get_by_role("button", name="Add noise").click()
    lab_page.wait_for_function(DIFFERS, arg=[canvas, before], timeout=ANSWER)
    said(lab_page, "of the pixels are painted; the positions they touch are noised.")
    assert painter.get_by_text("decoded with the noise", exact=True).is_visible()


def test_a_level_that_is_none_is_told(lab_page):
    painter = lab_page.locator(".ldm-paint")
    line = painter.get_by_role("textbox", name="Noise level t")
    button = painter.get_by_role("button", name="Add noise")
    line.fill("a lot")
    button.click()
    said(lab_page, "the level must be a whole number from 1 to 1000, got 'a lot'")
    line.fill("2000")
    button.click()
    said(lab_page, "2000")


def test_the_films_go_on_when_the_kernel_has_gone(lab_page, widgets):
    lab_page.evaluate(SHUT)
    assert every_slider_moves(lab_page) == widgets
