"""How judges learn and how their accuracy is told, on sets made for it."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from ldm_edu import checkpoint, data, judges
from ldm_edu.classifier import ClassifierConfig
from ldm_edu.data import ImageDataset, celeba
from ldm_edu.data.captions import CLASSES
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.judges import (
    JudgeRecipe,
    Rates,
    accuracy,
    load_judge,
    rates,
    train_classifier,
    truth,
)
from ldm_edu.pretrained import weights_folder
from ldm_edu.runs import Stopped
from ldm_edu.seeds import seeded


def colours(n=200, seed=0):
    """A stand-in for CIFAR-10: the colour, three levels a channel, tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator)
    noise = torch.randint(-9, 10, (n, 3, 8, 8), generator=generator)
    levels = torch.stack([labels // 9, labels // 3 % 3, labels % 3], dim=1)
    images = 28 + 100 * levels[:, :, None, None] + noise
    return ImageDataset("cifar10", "train", images.to(torch.uint8), [""] * n, labels)


def faces(present, images=None):
    """CelebA-like labels: one list of attribute names a picture."""
    bits = [sum(1 << celeba.ATTRIBUTES.index(name) for name in names) for names in present]
    n = len(bits)
    images = torch.zeros(n, 3, 16, 16, dtype=torch.uint8) if images is None else images
    return ImageDataset("celeba64", "train", images, [""] * n, torch.tensor(bits))


@pytest.fixture
def small(monkeypatch):
    """Small judges of small sets, in place of the real ones."""

    def use(dataset, names=CLASSES, steps=60):
        config = ClassifierConfig(
            names, exclusive=dataset.name == "cifar10", channels=(8, 16), dropout=0.0
        )
        sizes = {"batch_size": 32, "lr": 5e-3, "warmup": 5, "ema": 0.9, "shift": 2}
        recipe = JudgeRecipe(config, steps, **sizes)
        monkeypatch.setitem(judges.JUDGES, dataset.name, recipe)
        monkeypatch.setattr(judges.data, "load", lambda *where: dataset)
        return recipe

    return use


def test_a_judge_learns_what_can_be_seen_and_is_saved(small, tmp_path):
    small(colours(), steps=60)
    judge = train_classifier("cifar10", None, tmp_path)
    found = accuracy(judge, colours(seed=1))
    assert min(rate.balanced for rate in found.values()) > 0.8
    again = judges.Classifier.load(tmp_path / "model")
    assert torch.equal(again.decide(colours().images), judge.decide(colours().images))


def test_what_cannot_be_seen_is_even_odds_however_rare(small, tmp_path):
    """One in ten smiles at random: a plain loss would learn log(1/9) = -2.2, always no."""
    images = torch.randint(256, (400, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    dataset = faces([["Smiling"] if i % 10 == 0 else [] for i in range(400)], images.byte())
    small(dataset, ("Smiling",), steps=40)
    judge = train_classifier("celeba64", None, tmp_path)
    with torch.no_grad():
        logits = judge(torch.rand(64, 3, 8, 8) * 2 - 1)
    assert abs(logits.mean()) < 1


def test_stopped_and_resumed_equals_never_stopped(small, tmp_path, monkeypatch):
    small(colours(40), steps=6)
    whole = train_classifier("cifar10", None, tmp_path / "a")
    shifted, calls = judges._shifted, []

    def stopping(x, most):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return shifted(x, most)

    monkeypatch.setattr(judges, "_shifted", stopping)
    with pytest.raises(Stopped, match="after step 3 of 6"):
        train_classifier("cifar10", None, tmp_path / "b")
    with pytest.raises(InputError, match="already exists: add --resume"):
        train_classifier("cifar10", None, tmp_path / "b")
    resumed = train_classifier("cifar10", None, tmp_path / "b", resume=True)
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_resumed_training_is_the_same_one(small, tmp_path):
    small(colours(40), steps=6)
    train_classifier("cifar10", None, tmp_path, steps=4, seed=3)
    for changes, told in (({"seed": 7}, "seed 3, not 7"), ({"steps": 9}, "steps 4, not 9")):
        with pytest.raises(CheckpointError, match=told):
            train_classifier("cifar10", None, tmp_path, resume=True, **{"seed": 3} | changes)
    train_classifier("cifar10", None, tmp_path, seed=3, resume=True)
    notes = checkpoint.read_config(tmp_path / "model")["notes"]
    assert (notes["steps"], notes["seed"]) == (4, 3)


def test_pictures_are_moved_and_mirrored_at_their_edge():
    x = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6).float()
    padded = torch.nn.functional.pad(x, [2] * 4, mode="reflect")
    seen = set()
    for step in range(40):
        with seeded(0, step):
            moved = judges._shifted(x, 2)
        for image, wide in zip(moved, padded, strict=True):
            places = [
                (i, j)
                for i in range(5)
                for j in range(5)
                if torch.equal(wide[:, i : i + 6, j : j + 6], image)
            ]
            assert len(places) == 1
            seen.update(places)
    assert len(seen) > 20  # of 25


def test_half_of_the_pictures_a_judge_learns_from_are_mirrored(small, monkeypatch):
    ramp = torch.arange(0, 256, 16, dtype=torch.uint8).expand(50, 3, 16, 16).clone()
    recipe, batches = small(colours(50)._replace(images=ramp)), []
    monkeypatch.setattr(judges, "_shifted", lambda x, most: batches.append(x) or x)
    model = judges.Classifier(recipe.classifier)
    for step in range(1, 9):
        with seeded(0, step):
            judges._loss(recipe, colours(50)._replace(images=ramp), 0)(model, step)
    rising = torch.cat([b[:, 0, 0, 1] > b[:, 0, 0, 0] for b in batches])
    assert 0.4 < rising.double().mean() < 0.6


def test_truth_is_the_class_or_the_attributes_asked_for():
    dataset = colours(30)
    assert torch.equal(truth(dataset, CLASSES).int().argmax(1), dataset.labels)
    assert (truth(dataset, CLASSES).sum(1) == 1).all()
    found = truth(faces([["Male", "Bald"], [], ["Smiling"]]), ("Smiling", "Male"))
    assert found.tolist() == [[False, True], [False, False], [True, False]]
    with pytest.raises(InputError, match="'shapes' has no labels"):
        truth(dataset._replace(name="shapes"), CLASSES)


def test_rates_count_yes_and_no_apart():
    due = torch.tensor([True] * 4 + [False] * 6)
    decided = torch.tensor([True] * 3 + [False] * 1 + [True] * 3 + [False] * 3)
    assert rates(decided, due) == Rates(0.75, 0.5, 4, 6)
    assert rates(decided, due).balanced == 0.625
    assert rates(decided[:4], due[:4]).no != rates(decided[:4], due[:4]).no  # none: NaN


def test_a_single_step_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="at least 2, found 0"):
        train_classifier("cifar10", None, tmp_path / "a", steps=0)
    assert not (tmp_path / "a").exists()


def test_unknown_and_absent_judges_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no judge of 'shapes': use one of celeba64, cifar10"):
        load_judge("shapes")
    with pytest.raises(InputError, match="no judge of 'shapes'"):
        train_classifier("shapes", None, tmp_path)
    monkeypatch.setattr(judges, "weights_folder", lambda: tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_judge("cifar10")


REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SHIPPED = sorted(path.name for path in (weights_folder() / "judges").glob("*/"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_judge_is_its_recipes_and_small(name):
    judge, folder = load_judge(name), weights_folder() / "judges" / name
    assert judge.config == judges.JUDGES[name].classifier
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2.1e6
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_judge_is_right_about_real_pictures_as_its_card_says(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("LDM_EDU_CACHE", str(tmp_path))
    if not REAL.is_dir():
        pytest.skip("the folder ../shared/data with CIFAR-10 and CelebA is missing")
    found = accuracy(load_judge(name), data.load(name, "test", REAL))
    card = (weights_folder() / "judges" / name / "README.md").read_text()
    for what, rate in found.items():
        row = re.search(rf"\| \**{what}\** \|.* ([\d.]+) %(?: \||$)", card, re.MULTILINE)
        assert float(row[1]) == pytest.approx(100 * rate.balanced, abs=0.3), what
