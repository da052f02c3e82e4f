"""Notebook 00 in JupyterLab and as an exported page: the noise goes, captions are drawn."""

from driving import CANVAS, MARKS, SHUT, slider
from moving import ANSWER, DIFFERS, every_slider_moves

pytestmark = MARKS
NOTEBOOK, WIDGETS = "00_start_here.ipynb", 1


def test_the_slider_changes_the_picture_by_keyboard_and_mouse(page, widgets):
    assert every_slider_moves(page) == widgets
    step = slider(page, "Step")
    step.focus()
    page.keyboard.press("Home")
    assert step.get_attribute("aria-valuetext").startswith("t = 1000,")
    page.keyboard.press("End")
    assert step.get_attribute("aria-valuetext").startswith("t = 0,")


def test_the_page_tells_what_needs_a_kernel_and_draws_its_tables(exported):
    assert exported.get_by_text("(needs a running kernel)").count() == 1
    assert exported.get_by_role("link", name="03", exact=True).count() == 1
    assert exported.locator("table").count() >= 3


def test_a_caption_of_ones_own_is_drawn_and_a_word_unknown_is_told(lab_page):
    line = lab_page.locator(".widget-text input")
    canvas = lab_page.locator("canvas.ldm-film-canvas").element_handle()
    slider(lab_page, "Step").focus()
    lab_page.keyboard.press("End")
    before = canvas.evaluate(CANVAS)
    line.fill("a man with glasses")
    line.press("Enter")
    lab_page.wait_for_function(DIFFERS, arg=[canvas, before], timeout=ANSWER)
    lab_page.get_by_text("Write a caption and press Enter.", exact=True).wait_for(
        timeout=ANSWER
    )
    drawn = canvas.evaluate(CANVAS)
    line.fill("a dragon")
    line.press("Enter")
    lab_page.get_by_text("does not know the word 'dragon'").wait_for(timeout=ANSWER)
    assert canvas.evaluate(CANVAS) == drawn


def test_the_film_goes_on_when_the_kernel_has_gone(lab_page, widgets):
    lab_page.evaluate(SHUT)
    assert every_slider_moves(lab_page) == widgets
