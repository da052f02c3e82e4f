"""All measures of one model, each beside what it has to be compared to.

    judge = judge_of("celeba64")
    result = evaluate(pipe, train_set, test_set, spaces_of(judge), judge)
    print(as_text(result))                       # of ldm_edu.evaluation_table

docs/measures.md says what the numbers mean, and what they do not.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ldm_edu import checkpoint, data
from ldm_edu.classifier import Classifier
from ldm_edu.data import ImageDataset, shapes
from ldm_edu.data.judge import judge as judge_shapes
from ldm_edu.errors import InputError
from ldm_edu.features import features_of, load_efficientnet_lite0
from ldm_edu.judges import JUDGES, accuracy, load_judge
from ldm_edu.measures import closeness, likeness, reconstruct, sample_many, sampling_time
from ldm_edu.memorisation import Copies, copies, loss_gap, side_by_side
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.prompt_accuracy import ASKED, class_score, face_prompts, face_score, shape_score

Space = Callable[[Tensor], Tensor]
PROMPT_SEED = 3  # of the scenes that shapes is asked for; 1 and 2 are its splits
_MOST = 1000  # unseen pictures whose neighbours are looked for


def data_of(model: str | Path) -> str:
    """The data set of a shipped model or a checkpoint folder, as noted when it was saved.

    Raises InputError if the folder does not say; CheckpointError if it is none.
    """
    if str(model) in data.NAMES:
        return str(model)
    name = checkpoint.read_config(model).get("notes", {}).get("data")
    if name not in data.NAMES:
        raise InputError(f"{model} does not say what it was trained on: give --data")
    return name


def judge_of(name: str) -> Classifier | None:
    """The judge of a data set's prompts; shapes needs none, its pictures are read by rules."""
    return load_judge(name) if name in JUDGES else None


def spaces_of(judge: Classifier | None) -> dict[str, Space]:
    """The feature spaces to measure in: EfficientNet-Lite0's, and the judge's if there is one.

    Raises CheckpointError if the weights of the first are not installed.
    """
    spaces: dict[str, Space] = {"EffLite0": load_efficientnet_lite0()}
    return spaces if judge is None else {**spaces, "judge": judge.features}


def evaluate(
    pipe: LatentDiffusion,
    train_set: ImageDataset,
    test_set: ImageDataset,
    spaces: dict[str, Space],
    judge: Classifier | None = None,
    *,
    count: int = 2000,
    **sampling,
) -> dict:
    """Measure everything; see `evaluation_table.as_text` and `plain` for what to do with it.

    spaces: name -> map of images in [-1, 1] to features (`spaces_of`). judge: of prompts,
    needed for CelebA and CIFAR-10. count: N of every comparison; two disjoint sets of N are
    drawn from the training images, one to compare to, and the other for its captions, its
    reconstructions and the floor. sampling: options of `pipe.sample`, None being the default;
    20 steps and seed 0 unless told. "neighbours" in the result are pictures, uint8
    (S * 2 * P, 3, H, W): for pixels and for each space, the P samples nearest to training
    pictures, then these. Raises InputError for what cannot be measured, before anything long
    begins.
    """
    _check(pipe, train_set, test_set, count, judge)
    given = {key: value for key, value in sampling.items() if value is not None}
    sampling = {"steps": 20, "seed": 0, **given}
    real, other = two_sets(len(train_set.images), count)
    told, asked = pipe.tokenizer is not None, _rows(train_set, other)
    samples = sample_many(pipe, count, prompts=asked.captions if told else None, **sampling)
    restored = reconstruct(pipe, test_set.images)
    ceiling = reconstruct(pipe, asked.images)
    queries = samples, restored[:_MOST], test_set.images[:_MOST]
    result = {
        "data": train_set.name,
        "count": count,
        "sampling": {"guidance": pipe.guidance if told else None, **sampling},
        "reconstruction": closeness(test_set.images, restored),
        "likeness": {},
        "copies": {"pixels": _pixel_copies(train_set, *queries)},
        "prompts": _prompts(pipe, asked, test_set, restored, samples, judge, sampling),
        "loss": loss_gap(pipe, _rows(train_set, real), _of_known_kind(test_set)),
        "seconds": {"16 samples, 20 steps": sampling_time(pipe)},
        "threads": torch.get_num_threads(),
    }
    for space, net in spaces.items():
        train, again, drawn, *others = (
            features_of(net, images, f"features {space}")
            for images in (train_set.images, ceiling, *queries)
        )
        result["likeness"][space] = {
            "other real pictures": likeness(train[real], train[other]),
            "their reconstructions": likeness(train[real], again),
            "samples": likeness(train[real], drawn),
        }
        result["copies"][space] = copies(train, drawn, *others)
    pairs = [found.pairs for found in result["copies"].values()]
    shown = [side_by_side(each, samples, train_set.images) for each in pairs]
    result["neighbours"] = torch.cat(shown)
    return result


def two_sets(total: int, count: int) -> tuple[Tensor, Tensor]:
    """Rows of two disjoint sets of `count` out of `total`, the same in every measurement."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    return order[:count], order[count : 2 * count]


def plain(result):
    """The result of `evaluate` as JSON holds it.

    Named tuples become objects, NaN becomes null, pictures are left out.
    """
    if hasattr(result, "_asdict"):
        result = result._asdict()
    if isinstance(result, dict):
        kept = {key: v for key, v in result.items() if not isinstance(v, Tensor)}
        return {key: plain(value) for key, value in kept.items()}
    if isinstance(result, list):
        return [plain(value) for value in result]
    return None if isinstance(result, float) and result != result else result


def _check(pipe, train_set, test_set, count, judge):
    most = len(train_set.images) // 2
    if not 10 <= count <= most:
        raise InputError(
            f"count must be from 10 to {most}, half of {train_set.name}'s training images, "
            f"found {count}"
        )
    side = train_set.images.shape[-1]
    if side != pipe.image_size:
        raise InputError(
            f"the model makes images of {pipe.image_size} pixels, {train_set.name} has {side}"
        )
    if train_set.name in JUDGES and judge is None:
        raise InputError(f"the prompts of {train_set.name} need a judge: see `judge_of`")
    if pipe.tokenizer is not None:
        pipe.tokenizer([*train_set.captions, *test_set.captions])  # all words are known


def _rows(dataset: ImageDataset, rows: Tensor) -> ImageDataset:
    captions = [dataset.captions[i] for i in rows]
    images, labels = dataset.images[rows], dataset.labels[rows]
    return dataset._replace(images=images, captions=captions, labels=labels)


def _prompts(pipe, other, test_set, restored, samples, judge, sampling) -> dict:
    told = pipe.tokenizer is not None
    if other.name == "shapes":
        if told:
            return _shape_prompts(pipe, len(samples), sampling)
        accepted = [verdict.accepted for verdict in judge_shapes(samples)]
        return {"samples": {"clean": sum(accepted) / len(accepted)}}
    again = test_set._replace(images=restored)
    rows = {"real pictures": test_set, "their reconstructions": again}
    if other.name == "cifar10":
        rows = {row: class_score(judge, s.images, s.labels) for row, s in rows.items()}
        return {**rows, "samples": class_score(judge, samples, other.labels)} if told else rows
    found = {row: accuracy(judge, faces) for row, faces in rows.items()}
    rows = {row: {name: found[row][name] for name in ASKED} for row in found}
    if told:
        asked = face_prompts(test_set, len(samples))
        drawn = sample_many(pipe, len(asked.captions), prompts=asked.captions, **sampling)
        rows["samples"] = face_score(judge, drawn, asked)
    return rows


def _shape_prompts(pipe, count, sampling) -> dict:
    score = {}
    for row, kind in (("seen combinations", "never"), ("new combinations", "only")):
        scenes = shapes.random_scenes(count, PROMPT_SEED, kind)
        prompts = [shapes.caption(scene) for scene in scenes]
        score[row] = shape_score(sample_many(pipe, count, prompts=prompts, **sampling), scenes)
    return score


def _of_known_kind(dataset: ImageDataset) -> ImageDataset:
    if dataset.name != "shapes":
        return dataset
    # new combinations are another question
    scenes = [shapes.parse(caption) for caption in dataset.captions]
    known = [i for i, s in enumerate(scenes) if not any(map(shapes.held_out, s.objects))]
    return _rows(dataset, torch.tensor(known))


def _pixel_copies(train_set: ImageDataset, *queries: Tensor) -> Copies:
    sets = [train_set.images, *(images.float() for images in queries)]
    if train_set.name != "shapes":  # a mirrored face is a face, a mirrored place another place
        sets.append(train_set.images.flip(3))
    rows = [images.flatten(1) for images in sets]
    found, scale = copies(*rows), rows[0].shape[1] ** 0.5  # root mean square grey levels
    return found._replace(near=found.near / scale, closest=found.closest / scale)
