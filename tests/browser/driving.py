"""What the tests in a browser share: where it is, how JupyterLab is started and asked."""

import importlib.util
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = [
    name
    for name, found in {
        "Chromium on the PATH": CHROMIUM,
        "playwright": importlib.util.find_spec("playwright"),
    }.items()
    if not found
]
MARKS = [  # in CI they do not skip: there the fixture `browser` fails
    pytest.mark.browser,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("CI"), reason=f"no {' and no '.join(MISSING)}"
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


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(720):
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not answer: {log.read_text()}")


def slider(page, name: str):
    return page.get_by_role("slider", name=name, exact=True)
