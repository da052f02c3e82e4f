"""Where should sampling end? Faces measured in a space that the card does not report.

    pip install -e '.[evaluate]'
    python benchmarks/lowest.py --root FOLDER    # one thread; about 10 minutes

Frechet distances of N samples of `celeba64` to N training faces, whose N neighbours in the
order give captions, floor and reconstructions, for several levels below which sampling goes
on to clean in one step (`Grid.lowest`). The features are those of CIFAR-10's judge, which has
seen no face: of whole pictures, and of five crops of 32x32, the corners and the middle. Beside
them the distance that the card reports; with --count 2000 it is measured on the card's sets.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ldm_edu import LatentDiffusion, data, load_pretrained
from ldm_edu.evaluate import two_sets
from ldm_edu.features import features_of, load_efficientnet_lite0
from ldm_edu.judges import load_judge
from ldm_edu.measures import reconstruct, sample_many
from ldm_edu.metrics import frechet_distance

CROP = 32  # pixels, the size of what the judge was trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="where celeba64 lies")
    parser.add_argument("--count", type=int, default=800, help="N of each distance")
    parser.add_argument("--lowest", type=int, nargs="+", default=[1, 60, 90, 120, 150, 200])
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = data.load("celeba64", "train", options.root)
    print(table(load_pretrained("celeba64", "cpu"), faces, options.count, options.lowest))


def table(
    pipe: LatentDiffusion, faces: data.ImageDataset, count: int, lowest: Sequence[int]
) -> str:
    """The distances as Markdown: other faces, their reconstructions, samples a `lowest`."""
    real, other = two_sets(len(faces.images), count)
    captions = [faces.captions[i] for i in other]
    efflite0, judge = load_efficientnet_lite0(), load_judge("cifar10").features

    def features(images: Tensor) -> list[Tensor]:
        spaces = (judge, images), (judge, crops(images)), (efflite0, images)
        return [features_of(space, seen) for space, seen in spaces]

    reference = features(faces.images[real])

    def row(name: str, images: Tensor) -> str:
        whole, parts, reported = map(frechet_distance, reference, features(images))
        return f"| {name} | {whole:.2f} | {parts:.2f} | {reported:.1f} |"

    lines = ["| | 64 x 64 | crops | FD-EffLite0 |", "|---|---|---|---|"]
    lines.append(row("other training faces", faces.images[other]))
    lines.append(row("their reconstructions", reconstruct(pipe, faces.images[other])))
    for level in lowest:
        pipe.grid = replace(pipe.grid, lowest=level)
        name = f"`lowest={level}`, last level {pipe.timesteps(20)[-1]}"
        lines.append(row(name, sample_many(pipe, count, prompts=captions, steps=20)))
    return "\n".join(lines)


def crops(images: Tensor) -> Tensor:
    """Five of each face: (N, 3, 64, 64) -> (5 N, 3, 32, 32)."""
    end = images.shape[-1] - CROP
    corners = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
    parts = [images[..., top : top + CROP, left : left + CROP] for top, left in corners]
    return torch.cat(parts)


if __name__ == "__main__":
    main()
