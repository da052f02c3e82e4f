"""Notebook 07 in JupyterLab and as an exported page: latents lose their noise, models race."""

from driving import CANVAS, MARKS, SHUT, slider
from moving import every_slider_moves

pytestmark = MARKS
NOTEBOOK, WIDGETS = "07_diffuse_in_latents.ipynb", 2


def test_both_films_change_by_keyboard_and_mouse(page, widgets):
    assert every_slider_moves(page) == widgets


def test_the_latent_film_runs_from_noise_to_clean_and_names_its_panels(page):
    step = slider(page, "Step")
    step.focus()
    page.keyboard.press("Home")
    assert step.get_attribute("aria-valuetext").startswith("t = 1000,")
    page.keyboard.press("End")
    assert step.get_attribute("aria-valuetext").startswith("t = 0,")
    assert page.get_by_text("z0_hat decoded: the model's guess").first.is_visible()


def test_the_race_is_run_in_shares_and_the_other_film_stays(page):
    latents, race = (page.locator("canvas.ldm-film-canvas").nth(k) for k in (0, 1))
    share = slider(page, "Training")
    share.focus()
    page.keyboard.press("End")
    assert share.get_attribute("aria-valuetext") == "100% of the operations"
    still, end = latents.evaluate(CANVAS), race.evaluate(CANVAS)
    page.keyboard.press("Home")
    assert share.get_attribute("aria-valuetext") == "0% of the operations"
    assert race.evaluate(CANVAS) != end
    assert latents.evaluate(CANVAS) == still


def test_the_page_tells_when_the_autoencoder_is_repaid(exported):
    assert exported.get_by_text("32 x 32: repaid after").count() == 1
    assert exported.get_by_role("link", name="04 Diffuse in pixels").count() == 1


def test_the_films_go_on_when_the_kernel_has_gone(lab_page, widgets):
    lab_page.evaluate(SHUT)
    assert every_slider_moves(lab_page) == widgets
