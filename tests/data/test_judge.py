"""The judge: right on the data, also when degraded; strict on everything else."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from ldm_edu.data.judge import judge, matches
from ldm_edu.data.scenes import BACKGROUNDS, COLORS, Scene, parse
from ldm_edu.data.shapes import random_scenes, render
from ldm_edu.errors import InputError

COUNT = 300
SCENES = random_scenes(COUNT, 1234)


@pytest.fixture(scope="module")
def images():
    return render(SCENES)


def random(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_bytes(images):
    return images.round().clamp(0, 255).byte()


def blur(images, sigma):
    tap = torch.exp(-0.5 * (torch.arange(-8.0, 9.0) / sigma) ** 2)
    tap = tap / tap.sum()
    wide = F.pad(images.float(), (8, 8, 8, 8), mode="replicate").flatten(0, 1)[:, None]
    return to_bytes(F.conv2d(wide, torch.outer(tap, tap)[None, None]).view(images.shape))


def jpeg(images, quality=90):
    coded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        coded.append(np.array(Image.open(file)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(coded))


def noisy(images, sigma):
    return to_bytes(images + sigma * random(images.shape))


def accepted(images):
    return np.mean([verdict.accepted for verdict in judge(images)])


def right(images):
    return np.mean([matches(v, s) for v, s in zip(judge(images), SCENES, strict=True)])


def one(text):
    return render([parse(text)])


def canvas(background="white", scale=8):
    return Image.new("RGB", (32 * scale, 32 * scale), BACKGROUNDS[background])


def shrink(picture):
    small = picture.resize((32, 32), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small).transpose(2, 0, 1))[None]


def test_rendered_scenes_are_read_back_exactly(images):
    assert right(images) >= 0.995


@pytest.mark.parametrize(
    "degrade",
    [lambda x: noisy(x, 6), lambda x: blur(x, 0.5), jpeg],
    ids=["noise 6/255", "blur 0.5 px", "JPEG 90"],
)
def test_mild_damage_does_not_matter(images, degrade):
    assert right(degrade(images)) >= 0.96  # 97 % less one standard error of 300


def test_it_reads_pictures_that_the_renderer_did_not_draw():
    picture = canvas("pale blue")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((64 - 52, 64 - 52, 64 + 52, 64 + 52), fill=COLORS["purple"])
    pen.rectangle((192 - 28, 192 - 28, 192 + 27, 192 + 27), fill=COLORS["orange"])
    (verdict,) = judge(shrink(picture))
    text = "a large purple circle at the top left and a small orange square at the bottom right"
    assert verdict.accepted and matches(verdict, parse(text + " on a pale blue background"))


def test_colors_may_be_a_little_off():
    x = one("a medium red square on the left on a white background").float()
    assert judge(to_bytes(x * 0.96 + 4))[0].accepted


def test_matches_compares_everything_but_jitter():
    scene = next(s for s in SCENES if len(s.objects) == 2 and s.objects[0].color == "red")
    (verdict,) = judge(render([scene]))
    still = tuple(replace(obj, jitter=(0.0, 0.0)) for obj in scene.objects)
    assert matches(verdict, Scene(still, scene.background))
    assert matches(verdict, Scene(still[::-1], scene.background))
    first = still[0]
    for change in (
        {"color": "blue"},
        {"shape": "ring" if first.shape != "ring" else "cross"},
        {"size": "small" if first.size != "small" else "large"},
    ):
        assert not matches(
            verdict, Scene((replace(first, **change), still[1]), scene.background)
        )
    other = next(name for name in BACKGROUNDS if name != scene.background)
    assert not matches(verdict, Scene(still, other))
    assert not matches(verdict, Scene(still[:1], scene.background))
    assert not matches(verdict._replace(accepted=False), scene)


GARBAGE = {
    "uniform noise": lambda x: torch.randint(0, 256, x.shape).byte(),
    "smooth noise": lambda x: blur(to_bytes(160 + 60 * random(x.shape)), 3),
    "noise on scenes": lambda x: noisy(x, 30),
    "blurred to blobs": lambda x: blur(x, 1.5),
    "faded": lambda x: to_bytes((x.float() + x.float()[:, :, :1, :1]) / 2),
    "negative": lambda x: 255 - x,
    "dark": lambda x: to_bytes(x * 0.6),
    "empty": lambda x: x[:, :, :1, :1].expand(-1, -1, 32, 32),
    "enlarged from 8x8": lambda x: to_bytes(
        F.interpolate(F.avg_pool2d(x.float(), 4), scale_factor=4, mode="bilinear")
    ),
    "shaded sideways": lambda x: to_bytes(x - 30 * torch.linspace(0, 1, 32)),
    "shaded downward": lambda x: to_bytes(x - 30 * torch.linspace(0, 1, 32)[:, None]),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_rejected(images, kind):
    assert accepted(GARBAGE[kind](images[:80])) == 0


def test_two_scenes_in_one_are_rejected(images):
    # two objects that coincide, one inside the other, can look like one with a soft edge
    mixed = to_bytes((images[:150].float() + images[:150].roll(1, 0).float()) / 2)
    assert accepted(mixed) <= 0.01


def test_melted_shapes_are_rejected(images):
    flow = blur(to_bytes(128 + 300 * random((150, 2, 32, 32))), 2.5).float() - 128
    flow = flow / flow.std() * 2 / 16  # 2 pixels
    grid = F.affine_grid(torch.eye(2, 3).repeat(150, 1, 1), (150, 3, 32, 32), False)
    grid = grid + flow.permute(0, 2, 3, 1)
    melted = F.grid_sample(
        images[:150].float(), grid, padding_mode="border", align_corners=False
    )
    assert accepted(to_bytes(melted)) <= 0.01


SINGLE = [scene for scene in SCENES if len(scene.objects) == 1][:100]


def left_half(scene):
    return ((torch.arange(32) + 0.5) < scene.objects[0].center[0])[None, None]


@pytest.mark.parametrize("pair", [("red", "orange"), ("blue", "purple"), ("green", "black")])
def test_an_object_of_two_colors_is_rejected(pair):
    mixed = []
    for scene in SINGLE:
        halves = [
            render([Scene((replace(scene.objects[0], color=c),), scene.background)])[0]
            for c in pair
        ]
        mixed.append(torch.where(left_half(scene), *halves))
    assert accepted(torch.stack(mixed)) <= 0.01


def test_half_an_object_is_rejected():
    plain = torch.tensor([BACKGROUNDS[s.background] for s in SINGLE]).byte()[:, :, None, None]
    cut = torch.where(torch.stack([left_half(s) for s in SINGLE]), render(SINGLE), plain)
    assert accepted(cut) <= 0.01


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (
            lambda p: p.rectangle((200, 200, 215, 215), fill=COLORS["blue"]),
            "outline|radius|color",
        ),
        (lambda p: p.line((10, 230, 245, 230), fill=(150, 150, 150), width=14), "misfit|color"),
        (lambda p: p.ellipse((180, 20, 240, 60), fill=(232, 236, 240)), "stain"),
        (lambda p: p.rectangle((112, 112, 150, 150), fill=COLORS["blue"]), "color|regions"),
        (lambda p: p.rectangle((40, 110, 120, 140), fill=COLORS["red"]), "misfit"),
    ],
    ids=["stray blob", "smear", "faint stain", "patch in the object", "tail on the object"],
)
def test_one_flaw_is_enough(draw, reason):
    picture = canvas()
    pen = ImageDraw.Draw(picture)
    pen.ellipse((88, 88, 168, 168), fill=COLORS["red"])
    assert judge(shrink(picture))[0].accepted
    draw(pen)
    (verdict,) = judge(shrink(picture))
    assert not verdict.accepted and verdict.objects == ()
    assert any(word in verdict.reason for word in reason.split("|")), verdict.reason


def disc(radius=5.0, color=COLORS["red"], background=BACKGROUNDS["light gray"], power=2.0):
    """|x|^p + |y|^p < r^p in the center: a circle, or with a larger p nearly a square."""
    fine = ((torch.arange(256) + 0.5) / 8 - 16).abs() ** power
    inside = (fine[:, None] + fine[None, :] < radius**power).float()
    cover = F.avg_pool2d(inside[None, None], 8)
    ink, ground = (torch.tensor(c).float()[:, None, None] for c in (color, background))
    return ground + cover * (ink - ground)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (lambda: disc() + torch.linspace(-8, 8, 32), "background slope"),
        (lambda: disc() - 8, "background color error"),
        (lambda: torch.rand(1, 3, 32, 32) * 255, "background share"),
        (lambda: disc(radius=4.65, power=3.5), "shape ambiguity"),
        (lambda: disc(radius=2.2), "radius"),
        (lambda: disc(radius=9.0), "radius"),
        (lambda: disc(color=(255, 0, 255)), "color residual"),
        (lambda: disc(color=(212, 120, 122)), "color strength"),
        (lambda: disc(radius=6.0, power=1.0), "outline misfit"),
    ],
)
def test_each_limit_is_met_and_named(picture, reason):
    assert judge(to_bytes(disc()))[0].accepted
    (verdict,) = judge(to_bytes(picture()))
    assert not verdict.accepted
    assert verdict.reason.startswith(reason + " is "), verdict.reason


def test_three_objects_are_rejected():
    picture = canvas()
    for x in (48, 128, 208):
        ImageDraw.Draw(picture).ellipse((x - 28, 100, x + 28, 156), fill=COLORS["green"])
    assert "number of separate regions is 3" in judge(shrink(picture))[0].reason


@pytest.mark.parametrize("corners", [5, 6, 8])
def test_small_sided_polygons_are_not_taken_for_squares_or_triangles(corners):
    picture = canvas()
    ImageDraw.Draw(picture).regular_polygon((128, 128, 52), corners, fill=COLORS["black"])
    (verdict,) = judge(shrink(picture))
    assert not verdict.accepted or verdict.objects[0].shape == "circle"


def test_a_square_on_its_corner_is_rejected():
    picture = canvas()
    ImageDraw.Draw(picture).polygon(
        [(128, 70), (186, 128), (128, 186), (70, 128)], fill="black"
    )
    assert not judge(shrink(picture))[0].accepted


def test_photographs_are_rejected(real):
    from ldm_edu import data

    photographs = data.load("cifar10", "test", real).images[:200]
    assert accepted(photographs) == 0


def test_the_verdict_does_not_depend_on_the_batch(images):
    assert judge(images[:20]) == [judge(image[None])[0] for image in images[:20]]
    assert judge(images[:0]) == []


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (torch.zeros(2, 3, 32, 32), "float32"),
        (np.zeros((2, 3, 32, 32), np.uint8), "ndarray"),
        (torch.zeros(2, 1, 32, 32).byte(), "1, 32, 32"),
        (torch.zeros(3, 32, 32).byte(), "3, 32, 32"),
        (torch.zeros(2, 3, 64, 64).byte(), "64, 64"),
    ],
)
def test_wrong_input_is_named(bad, found):
    with pytest.raises(InputError, match=found):
        judge(bad)
