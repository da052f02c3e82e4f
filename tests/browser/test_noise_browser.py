"""Notebook 01 in JupyterLab and as an exported page: a photograph noised, and one's own."""

import pytest
import torch
from driving import CANVAS, MARKS, SHUT, slider
from moving import ANSWER, DIFFERS, every_slider_moves

from ldm_edu.images import encode_png

pytestmark = MARKS
NOTEBOOK, WIDGETS = "01_add_noise_to_an_image.ipynb", 1
BUTTON = "button.widget-upload"


def by_mouse(page, button) -> None:
    button.click()


def by_keyboard(page, button) -> None:
    button.focus()
    page.keyboard.press("Enter")


def choose(page, press, name: str, content: bytes) -> None:
    """Open a file of this name and content by the button, as a user does."""
    with page.expect_file_chooser() as chooser:
        press(page, page.locator(BUTTON))
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_each_slider_changes_its_picture_by_keyboard_and_mouse(page, widgets):
    assert every_slider_moves(page) == widgets


def test_all_three_schedules_run_from_clean_to_noise(page):
    canvas = page.locator("canvas.ldm-film-canvas")
    t, schedule = slider(page, "Noise level t"), slider(page, "Schedule")
    t.press("End")
    assert t.get_attribute("aria-valuetext").startswith("t = 1000,")
    t.press("Home")
    assert t.get_attribute("aria-valuetext").startswith("t = 0,")
    for _ in range(10):
        t.press("ArrowRight")
    schedule.press("Home")
    seen = {}
    for _ in range(3):
        seen[schedule.get_attribute("aria-valuetext")] = canvas.evaluate(CANVAS)
        schedule.press("ArrowRight")
    assert set(seen) == {"linear", "scaled_linear", "cosine"}
    assert len(set(seen.values())) == 3


def test_the_page_tells_what_needs_a_kernel(exported):
    assert exported.get_by_text("picture of your own (needs a running kernel)").count() == 1
    assert exported.locator(BUTTON).count() == 0


@pytest.mark.parametrize(("press", "shade"), [(by_mouse, 255), (by_keyboard, 0)])
def test_a_picture_of_ones_own_is_put_on_the_slider(lab_page, press, shade):
    canvas = lab_page.locator("canvas.ldm-film-canvas").element_handle()
    slider(lab_page, "Noise level t").press("Home")
    before = canvas.evaluate(CANVAS)
    picture = torch.full((3, 40, 60), shade, dtype=torch.uint8)
    choose(lab_page, press, f"{shade}.png", encode_png(picture))
    lab_page.wait_for_function(DIFFERS, arg=[canvas, before], timeout=ANSWER)


def test_a_file_that_is_no_picture_is_told_and_the_film_stays(lab_page):
    canvas, button = lab_page.locator("canvas.ldm-film-canvas"), lab_page.locator(BUTTON)
    before = canvas.evaluate(CANVAS)
    choose(lab_page, by_mouse, "words.png", b"no picture")
    button.get_by_text("words.png: this file is no picture").wait_for(timeout=ANSWER)
    assert canvas.evaluate(CANVAS) == before


def test_the_film_goes_on_when_the_kernel_has_gone(lab_page, widgets):
    lab_page.evaluate(SHUT)
    assert every_slider_moves(lab_page) == widgets
