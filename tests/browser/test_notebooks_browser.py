"""Films in JupyterLab and in an exported page, in a real browser, by keyboard and mouse."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="playwright is not installed"
    ),
]
SETTINGS = {  # no pop-up about news; all cells in the page, also those out of sight
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false"}',
    "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',
}
IDLE = """() => {
  const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
  const kernel = context?.session?.kernel;
  const connected = context?.isReady && kernel?.connectionStatus === "connected";
  return connected && kernel.status === "idle";
}"""
RUN = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
SHUT = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
CANVAS = "canvas => canvas.toDataURL()"

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
---
print("ALL DONE")
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu"]
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, book):
    """The address of a JupyterLab of our own, with empty settings."""
    home = tmp_path_factory.mktemp("jupyter")
    for name, text in SETTINGS.items():
        file = home / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={book.parent}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = (home / "lab.log").open("w")
    lab = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status", lab, home / "lab.log")
        yield address
    finally:
        lab.terminate()
        lab.wait(30)
        log.close()


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not answer: {log.read_text()}")


@pytest.fixture(scope="module")
def lab_page(browser, server, book):
    """The notebook in JupyterLab, after Run All."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{server}/lab/tree/{book.name}?reset")
    page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=90_000)
    page.wait_for_function(IDLE, timeout=90_000)
    page.evaluate(RUN)
    page.wait_for_selector("pre:has-text('ALL DONE')", timeout=90_000)
    page.wait_for_function("() => document.querySelectorAll('[data-ready]').length === 2")
    yield page
    assert errors == []
    page.close()


@pytest.fixture(scope="module")
def exported(browser, book):
    """The notebook as one page, from file:// with the network off."""
    from ldm_edu.lab.execute import run
    from ldm_edu.lab.export import page as as_page

    target = book.with_suffix(".html")
    target.write_text(as_page(run(book), "films"), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 1000})
    page, troubles, requests = context.new_page(), [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(target.as_uri())
    page.wait_for_function("() => document.querySelectorAll('[data-ready]').length === 2")
    yield page
    assert troubles == []
    assert [url for url in requests if not url.startswith("data:")] == [target.as_uri()]
    context.close()


@pytest.fixture(params=["lab_page", "exported"])
def page(request):
    return request.getfixturevalue(request.param)


def slider(page, name: str):
    return page.get_by_role("slider", name=name, exact=True)


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


def test_slides_turn_and_leave_the_arrow_keys_to_sliders(browser, book):
    from ldm_edu.lab.execute import run
    from ldm_edu.lab.export import page as as_page

    executed = run(book)
    for cell in executed.cells[:2]:
        cell.metadata["slideshow"] = {"slide_type": "slide"}
    target = book.with_name("slides.html")
    target.write_text(as_page(executed, "slides", slides=True), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 700})
    page = context.new_page()
    page.goto(target.as_uri())
    page.wait_for_function("() => document.querySelectorAll('[data-ready]').length === 2")
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
    context.close()
