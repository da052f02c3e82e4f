"""Notebook 06 in JupyterLab and as an exported page: latents edited, mixed and noised."""

from driving import CANVAS, MARKS, SHUT
from moving import ANSWER, DIFFERS, every_slider_moves
from painting import said, stroke

pytestmark = MARKS
NOTEBOOK, WIDGETS = "06_look_inside_latent_space.ipynb", 5


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


def test_the_page_tells_what_needs_a_kernel_and_shows_a_still_of_the_painter(exported):
    assert exported.get_by_text("(needs a running kernel)").count() == 1
    assert exported.locator(".ldm-paint").count() == 0
    assert exported.get_by_role("img", name="A chequered veil lies on").is_visible()


def test_noise_is_put_where_the_brush_was(lab_page):
    painter = lab_page.locator(".ldm-paint")
    result = painter.locator(".ldm-paint-result")
    painter.get_by_role("button", name="Clear").click()
    stroke(lab_page, y=12)
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
