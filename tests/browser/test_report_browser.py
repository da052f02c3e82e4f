"""The report in a real browser, from file:// with the network off."""

from pathlib import Path

import pytest
import torch
from driving import MARKS

from ldm_edu.report import Denoising, Noising, Reconstruction, Report, write_report

pytestmark = MARKS
DATA = "() => document.querySelectorAll('canvas')[{}].toDataURL()"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    images, pixels, latents = noise(8, 3, 16, 16), noise(8, 4, 3, 16, 16), noise(8, 4, 3, 4, 4)
    t = list(range(0, 800, 100))
    alpha_bar = [1 - step / 1000 for step in t]
    path: Path = tmp_path_factory.mktemp("browser") / "report.html"
    report = Report(
        title="A test run",
        summary=[("Data set", "noise")],
        images=images,
        captions=[],
        reconstruction=Reconstruction(images, images, [30.0] * 8, 30.0),
        latents=torch.randn(2, 4, 4, 4, generator=generator),
        noising=Noising(t, alpha_bar, pixels, pixels, latents),
        curves={"loss": ([1, 2, 3], [3.0, 2.0, 1.0])},
        denoising=Denoising(t[::-1], pixels, pixels, latents),
        samples=images,
        prompts=[],
        command="ldm-edu quickstart",
        versions={"torch": torch.__version__},
    )
    return write_report(path, report).as_uri()


@pytest.fixture
def open_page(browser, address):
    """Opens the report in a fresh context, and fails on errors or requests at the end."""
    contexts, troubles, requests = [], [], []

    def opened(**options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        if options.get("java_script_enabled", True):
            ready = "() => document.querySelectorAll('[data-ready]').length === 2"
            page.wait_for_function(ready)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
    assert requests == [address] * len(contexts)


def state(page, film: int = 0) -> tuple[str, str, str]:
    slider = page.locator("input[type=range]").nth(film)
    return (
        page.evaluate(DATA.format(film)),
        slider.get_attribute("aria-valuetext"),
        slider.input_value(),
    )


def test_the_keyboard_moves_the_slider(open_page):
    page = open_page()
    slider = page.get_by_role("slider", name="Noise level t")
    before = state(page)
    slider.focus()
    page.keyboard.press("ArrowRight")
    after = state(page)
    assert after[2] == "1"
    assert after[0] != before[0]
    assert before[1].startswith("t = 0,")
    assert after[1].startswith("t = 100,")
    page.keyboard.press("End")
    assert state(page)[1].startswith("t = 700,")
    page.keyboard.press("Home")
    assert state(page) == before


def test_the_mouse_and_the_step_buttons_move_it_and_the_other_film_stays(open_page):
    page = open_page()
    before, other = state(page), state(page, 1)
    slider = page.locator("input[type=range]").first
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    middle = state(page)
    assert middle[0] != before[0]
    assert middle[1] != before[1]
    assert middle[2] in ("3", "4")
    page.get_by_role("button", name="One frame on: Noise level t").click()
    assert int(state(page)[2]) == int(middle[2]) + 1
    page.get_by_role("button", name="One frame back: Noise level t").click()
    assert state(page) == middle
    assert state(page, 1) == other


def test_play_advances_pauses_and_starts_again_from_the_end(open_page):
    page = open_page()
    frame = "document.querySelector('input[type=range]').value"
    page.get_by_role("button", name="Play: Noise level t").click()
    page.wait_for_function(f"() => {frame} >= 2")
    page.get_by_role("button", name="Pause: Noise level t").click()
    stopped = state(page)
    page.wait_for_timeout(500)
    assert state(page) == stopped
    page.locator("input[type=range]").first.fill("7")
    page.get_by_role("button", name="Play: Noise level t").click()
    assert page.locator("input[type=range]").first.input_value() in ("0", "1")
    page.wait_for_function(f"() => {frame} == 7")
    page.get_by_role("button", name="Play: Noise level t").wait_for()


def test_nothing_plays_by_itself_and_reduced_motion_is_slow(open_page):
    page = open_page(reduced_motion="reduce")
    before = state(page)
    page.wait_for_timeout(400)
    assert state(page) == before
    page.get_by_role("button", name="Play: Noise level t").click()
    page.wait_for_timeout(500)
    assert state(page) == before


def test_stills_stand_in_without_script_and_on_paper(open_page):
    still = open_page(java_script_enabled=False)
    assert still.locator(".stills img").first.is_visible()
    assert still.locator("canvas").count() == 0
    assert "need JavaScript" in still.locator("noscript").inner_text()
    page = open_page()
    assert not page.locator(".stills img").first.is_visible()
    page.emulate_media(media="print")
    assert page.locator(".stills img").first.is_visible()
    assert not page.locator("canvas").first.is_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
