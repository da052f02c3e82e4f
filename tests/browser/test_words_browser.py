"""Notebook 10 in JupyterLab and as an exported page: captions drawn, masks painted."""

from driving import CANVAS, MARKS, SHUT
from moving import ANSWER, DIFFERS, every_slider_moves
from painting import said, stroke

pytestmark = MARKS
NOTEBOOK, WIDGETS = "10_draw_from_words.ipynb", 5
STROKES = "veil => veil.getContext('2d').getImageData(256, 64, 1, 1).data[3]"  # at (32, 8)


def test_each_slider_changes_its_picture_by_keyboard_and_mouse(page, widgets):
    assert every_slider_moves(page) == widgets


def test_the_page_tells_what_needs_a_kernel_and_shows_a_still_of_the_painter(exported):
    assert exported.get_by_text("(needs a running kernel)").count() == 2
    assert exported.locator(".ldm-paint").count() == 0
    assert exported.get_by_role("img", name="A chequered veil lies on").is_visible()


def test_a_caption_of_ones_own_is_drawn(lab_page):
    line = lab_page.locator(".widget-text input")
    canvas = lab_page.locator("canvas.ldm-film-canvas").first.element_handle()
    lab_page.get_by_role("slider", name="Step", exact=True).press("End")
    before = canvas.evaluate(CANVAS)
    line.fill("a small blue cross at the bottom on a white background")
    line.press("Enter")
    lab_page.wait_for_function(DIFFERS, arg=[canvas, before], timeout=ANSWER)


def test_what_is_painted_over_is_painted_anew_as_the_caption_says(lab_page):
    painter = lab_page.locator(".ldm-paint")
    veil, result = painter.locator(".ldm-paint-veil"), painter.locator(".ldm-paint-result")
    painter.get_by_role("button", name="Clear").click()
    assert veil.evaluate(STROKES) == 0
    stroke(lab_page, y=8)
    assert veil.evaluate(STROKES) == 255
    canvas, before = result.element_handle(), result.evaluate(CANVAS)
    line = painter.get_by_role("textbox")
    line.fill("a woman with a hat")
    painter.get_by_role("button", name="Paint anew").click()
    lab_page.wait_for_function(DIFFERS, arg=[canvas, before], timeout=ANSWER)
    said(lab_page, "of the pixels are new; the others are the very same.")
    assert painter.get_by_text("painted anew", exact=True).is_visible()


def test_the_brush_is_moved_and_put_down_by_keys_and_a_stroke_undone(lab_page):
    painter = lab_page.locator(".ldm-paint")
    veil = painter.locator(".ldm-paint-veil")
    painter.get_by_role("button", name="Clear").click()
    empty = veil.evaluate(CANVAS)
    veil.focus()
    for key in ("Space", "ArrowRight", "ArrowDown", "Space"):
        lab_page.keyboard.press(key)
    assert veil.evaluate(CANVAS) != empty
    painter.get_by_role("button", name="Undo").click()
    assert veil.evaluate(CANVAS) == empty


def test_an_empty_mask_and_an_unknown_word_are_told(lab_page):
    painter = lab_page.locator(".ldm-paint")
    button = painter.get_by_role("button", name="Paint anew")
    button.click()
    said(lab_page, "nothing is masked yet: paint over a part of the picture")
    box = painter.locator(".ldm-paint-veil").bounding_box()
    lab_page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    painter.get_by_role("textbox").fill("a dragon")
    button.click()
    said(lab_page, "does not know the word 'dragon'")


def test_the_films_go_on_when_the_kernel_has_gone(lab_page, widgets):
    lab_page.evaluate(SHUT)
    assert every_slider_moves(lab_page) == widgets
