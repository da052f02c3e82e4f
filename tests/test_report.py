"""The report: what is in the file, and what must not be."""

import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from ldm_edu.errors import InputError, StorageError
from ldm_edu.film import Film, asset, film_html
from ldm_edu.report import Denoising, Noising, Reconstruction, Report, write_report

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> \"' & <!--"


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def example(side: int = 16, frames: int = 5, text: str = "a red circle") -> Report:
    """A report of pure noise, the hardest thing to compress."""
    small = side // 4
    t = [round(k * 1000 / (frames - 1)) for k in range(frames)]
    alpha_bar = [1 - k / (frames - 1) for k in range(frames)]
    pixels, latents = noise(frames, 9, 3, side, side), noise(frames, 9, 3, small, small)
    images = noise(24, 3, side, side)
    values = [0.5 + math.exp(-k / 20) for k in range(200)]
    return Report(
        title=text,
        summary=[("Data set", text)],
        images=images,
        captions=[text] * 24,
        reconstruction=Reconstruction(images, images.flip(0), [30.0] * 24, 30.0, 28.0),
        latents=torch.randn(4, 4, small, small),
        noising=Noising(t, alpha_bar, pixels, pixels.flip(0), latents),
        curves={text: (list(range(200)), values), "second": ([1, 2, 3], [1.0, 10.0, 100.0])},
        denoising=Denoising(t[::-1], pixels, pixels.flip(0), latents),
        samples=noise(64, 3, side, side),
        prompts=[text] * 64,
        command=text,
        versions={"torch": text},
    )


class Page(HTMLParser):
    """The elements of a page, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(path, example()) == path
    return path.read_text(encoding="utf-8")


def test_nothing_is_fetched_from_anywhere(text):
    for kind, address in re.findall(r"""\b(src|href)\s*=\s*["']?([^"'\s>]*)""", text):
        assert address.startswith(("data:", "#")), (kind, address[:60])
    assert not re.search(r"https?://|@import|url\(\s*[\"']?(?!data:)", text)
    assert "default-src 'none'" in text


def test_one_h1_no_heading_jump_and_alt_on_every_image(text):
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    images = page.every("img")
    assert len(images) > 50
    assert all((image.get("alt") or "").strip() for image in images)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.every("a")}
    assert targets <= set(ids)


def test_hostile_texts_stay_texts(tmp_path):
    plain = Page(write_report(tmp_path / "a.html", example(text="a")).read_text())
    path = write_report(tmp_path / "b.html", example(text=HOSTILE))
    page = Page(path.read_text())
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert HOSTILE in [image["alt"] for image in page.every("img")]


def test_a_film_with_hostile_texts_has_the_elements_of_a_plain_one():
    frames = noise(2, 3, 4, 4)
    plain = Page(film_html(Film(frames, ["a"] * 2, "a", "a", 0, ["a"], "a")))
    hostile = Film(frames, [HOSTILE] * 2, HOSTILE, HOSTILE, 0, [HOSTILE], HOSTILE)
    page = Page(film_html(hostile))
    assert [(tag, list(a)) for tag, a in page.elements] == [
        (tag, list(a)) for tag, a in plain.elements
    ]
    assert all(HOSTILE in image["alt"] for image in page.every("img"))
    state = json.loads(page.scripts[0])
    assert state["labels"] == [HOSTILE] * 2
    assert state["name"] == HOSTILE


def test_the_page_holds_the_module_word_for_word(text):
    assert asset("film.js") in text


def test_noise_at_64_pixels_stays_below_3_megabytes(tmp_path):
    path = write_report(tmp_path / "report.html", example(side=64, frames=50))
    assert path.stat().st_size < 3_000_000


def test_a_code_worse_than_pca_is_told_so(tmp_path):
    report = example()
    report = replace(report, reconstruction=replace(report.reconstruction, pca_psnr=33.0))
    assert "3.0 dB below it" in write_report(tmp_path / "a.html", report).read_text()


def test_the_level_of_equal_noise_is_one_that_the_film_shows(tmp_path):
    report = example(frames=33)
    alpha_bar = [
        1 - (k / 32) ** 2 for k in range(33)
    ]  # nearest to 1/2 at 23, which is not shown
    report = replace(report, noising=replace(report.noising, alpha_bar=alpha_bar))
    text = write_report(tmp_path / "a.html", report).read_text()
    level = re.search(r"closest to equal at <i>t</i> = (\d+)", text)[1]
    assert f'"t = {level}, ' in text


def test_a_folder_that_is_missing_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError):
        write_report(tmp_path / "no_such" / "report.html", example())


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": torch.zeros(2, 3, 8, 8)},
        {"samples": noise(3, 16, 16)},
        {"captions": ["one"]},
        {"prompts": ["one"]},
        {"latents": torch.zeros(4, 4, 3, 3)},
        {"latents": torch.full((4, 4, 4, 4), math.nan)},
        {"latents": torch.zeros(25, 4, 4, 4)},
        {"curves": {}},
        {"curves": {"loss": ([1, 2], [1.0, math.inf])}},
        {"curves": {"loss": ([2, 2], [1.0, 1.0])}},
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong):
    with pytest.raises(InputError):
        replace(example(), **wrong)


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("reconstruction", {"psnr": [1.0]}),
        ("reconstruction", {"psnr_overall": math.nan}),
        ("reconstruction", {"reconstructions": noise(24, 3, 8, 8)}),
        ("noising", {"t": [0]}),
        ("noising", {"alpha_bar": [2.0] * 5}),
        ("noising", {"latents_rgb": noise(4, 9, 3, 4, 4)}),
        ("denoising", {"t": [0]}),
        ("denoising", {"z_t_rgb": noise(5, 9, 3, 5, 5)}),
    ],
)
def test_records_that_do_not_fit_are_refused(part, wrong):
    with pytest.raises(InputError):
        replace(getattr(example(), part), **wrong)
