"""A browser, and a notebook in it: in JupyterLab, and as an exported page.

A test file says which: NOTEBOOK is the name of one of the course's, WIDGETS the number of films
in it. Or it has a fixture `book` of its own, the path of a notebook in a folder of its own.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from driving import CHROMIUM, IDLE, MISSING, RUN, SETTINGS, wait_for

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
READY = "count => document.querySelectorAll('[data-ready]').length === count"


@pytest.fixture(scope="module")
def book(request, tmp_path_factory):
    """A copy of the notebook, whose trainings are short: what is learned is not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDM_EDU_SMOKE", "1")
        original = NOTEBOOKS / request.module.NOTEBOOK
        yield Path(shutil.copy(original, tmp_path_factory.mktemp("lab")))


@pytest.fixture(scope="module")
def widgets(request) -> int:
    return request.module.WIDGETS


@pytest.fixture(scope="module")
def browser():
    if MISSING:
        pytest.fail(f"CI needs a real browser; there is no {' and no '.join(MISSING)}")
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


@pytest.fixture(scope="module")
def lab_page(browser, server, book, widgets):
    """The notebook in JupyterLab, after Run All."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{server}/lab/tree/{book.name}?reset")
    page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=180_000)
    page.wait_for_function(IDLE, timeout=180_000)
    page.evaluate(RUN)
    page.wait_for_function(READY, arg=widgets, timeout=180_000)
    yield page
    assert errors == []
    page.close()


@pytest.fixture(scope="module")
def exported(browser, book, widgets):
    """The notebook as one page, from file:// with the network off."""
    from ldm_edu.lab.execute import run
    from ldm_edu.lab.export import page as as_page

    target = book.with_suffix(".html")
    target.write_text(as_page(run(book), book.stem), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 1000})
    page, troubles, requests = context.new_page(), [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(target.as_uri())
    page.wait_for_function(READY, arg=widgets)
    yield page
    assert troubles == []
    assert [url for url in requests if not url.startswith("data:")] == [target.as_uri()]
    context.close()


@pytest.fixture(params=["lab_page", "exported"])
def page(request):
    return request.getfixturevalue(request.param)
