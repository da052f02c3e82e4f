"""Data sets by name from the Hugging Face hub; without a network, an answer within seconds."""

import os
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ldm_edu.data.decode import one_line
from ldm_edu.data.source import ENVIRONMENT, Layout
from ldm_edu.errors import DataError

if TYPE_CHECKING:
    import datasets

TIMEOUT = 3.0  # seconds to wait for an answer
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}


def download(layout: Layout, split: str) -> "datasets.Dataset":
    """One split of a data set, through Hugging Face `datasets`.

    What `datasets` has downloaded before is used when the hub cannot be reached. Raises
    DataError, naming the folder to give instead, if there is neither.
    """
    import datasets

    online = reachable()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or not online  # use its cache, do not retry
    try:
        found = datasets.load_dataset(layout.hub)
    except Exception as error:  # datasets raises many kinds
        reason = one_line(error) if online else "the hub cannot be reached"
        raise DataError(
            f"cannot download {layout.name} ({reason}): give a folder that holds it with "
            f"--root FOLDER (root=...) or {ENVIRONMENT}; the files can be had from "
            f"https://huggingface.co/datasets/{layout.hub}"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    for word in layout.splits[split]:
        if word in found:
            return found[word]
    raise DataError(
        f"{layout.hub} has no split {split!r}: found {', '.join(found)}, "
        f"expected {' or '.join(layout.splits[split])}"
    )


def reachable() -> bool:
    """True if the hub, or the proxy in front of it, answers within 3 seconds.

    False without asking if HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set. HF_ENDPOINT may name
    another host.
    """
    if any(os.environ.get(name, "").upper() in _TRUE for name in _OFFLINE):
        return False
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not urllib.request.proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    answers = []
    asking = threading.Thread(target=_connect, args=(url, answers), daemon=True)
    asking.start()
    asking.join(TIMEOUT + 0.5)  # name lookup has no timeout of its own
    return bool(answers)


def _connect(url, answers):
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        with socket.create_connection((url.hostname, port), TIMEOUT):
            answers.append(True)
    except (OSError, ValueError):
        return
