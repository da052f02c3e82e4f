"""The judges' network: what it decides, and that it is stored whole."""

import pytest
import torch

from ldm_edu import checkpoint
from ldm_edu.classifier import Classifier, ClassifierConfig
from ldm_edu.errors import CheckpointError, InputError

NAMES = ("hat", "smile", "glasses")


def tiny(exclusive=False, **sizes):
    torch.manual_seed(0)
    sizes = {"channels": (8, 12), "patch": 2, **sizes}
    return Classifier(ClassifierConfig(NAMES, exclusive, **sizes)).eval()


def saying(model, *bias):
    """The model with these logits, whatever it sees."""
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data.copy_(torch.tensor(bias))
    return model


IMAGES = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)


def test_logits_are_a_linear_map_of_the_features():
    model, x = tiny(), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert model.features(x).shape == (4, 12)
        torch.testing.assert_close(model(x), model.head(model.features(x)))
        assert (model(x)[0] - model(x)[1]).abs().max() > 1e-4


def test_every_pixel_counts():
    model, x = tiny(), torch.randn(1, 3, 16, 16, requires_grad=True)
    model(x).square().sum().backward()
    assert (x.grad != 0).all()


def test_any_number_is_decided_by_sign_and_one_of_many_by_the_largest():
    assert saying(tiny(), 0.1, -0.1, 3).decide(IMAGES).tolist() == [[True, False, True]] * 5
    found = saying(tiny(exclusive=True), -3, -1, -2).decide(IMAGES)
    assert found.tolist() == [[False, True, False]] * 5


def test_decisions_are_those_of_the_images_in_order():
    model = tiny()
    images = torch.randint(256, (600, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        logits = model(images.float() / 127.5 - 1)
    model.head.bias.data -= logits.median(0).values  # so that both answers occur
    decided = model.decide(images)
    with torch.no_grad():
        clear = (model(images.float() / 127.5 - 1)).abs() > 1e-5
        assert torch.equal(decided[clear], (model(images.float() / 127.5 - 1) > 0)[clear])
    assert 0.4 < decided.double().mean() < 0.6


def test_stored_in_half_precision_and_read_back(tmp_path):
    model = tiny()
    model.levels[0][0][1].running_mean.fill_(0.3)
    model.save(tmp_path / "judge", data="toys")
    config, tensors = checkpoint.load(tmp_path / "judge")
    assert config["notes"] == {"data": "toys"}
    floats = [v for v in tensors["classifier"].values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float16}
    again = Classifier.load(tmp_path / "judge")
    assert again.config == model.config and not again.training
    ours, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(theirs[k], ours[k].half().to(ours[k])) for k in ours)


def test_another_checkpoint_is_refused(tmp_path):
    checkpoint.save(tmp_path / "other", {"format": "ldm_edu.LatentDiffusion"}, {})
    with pytest.raises(CheckpointError, match=r"holds ldm_edu.LatentDiffusion, not"):
        Classifier.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"names": NAMES, "exclusive": True, "colour": 3}, "'colour'"),
        ({"names": NAMES}, "'exclusive'"),
    ],
)
def test_settings_that_fit_no_classifier_are_refused(tmp_path, settings, found):
    config = {"format": "ldm_edu.Classifier", "classifier": settings}
    checkpoint.save(tmp_path / "judge", config, {"classifier": {}})
    with pytest.raises(CheckpointError, match=found):
        Classifier.load(tmp_path / "judge")
    checkpoint.save(tmp_path / "judge", {"format": "ldm_edu.Classifier"}, {})
    with pytest.raises(CheckpointError, match="lacks 'classifier'"):
        Classifier.load(tmp_path / "judge")


@pytest.mark.parametrize("names", [(), ("hat", "hat")])
def test_names_are_some_and_each_once(names):
    with pytest.raises(InputError, match="each once"):
        ClassifierConfig(names, exclusive=True)


def test_floats_are_not_judged():
    with pytest.raises(InputError, match="uint8"):
        tiny().decide(torch.zeros(1, 3, 16, 16))
