"""Exercises of notebook 00, Start here."""

from ldm_edu.lab.exercises.checking import Exercise


def _shape(image_size, f, channels, power=1):
    side = image_size // f**power
    return channels, side, side


latent_shape = Exercise(
    name="latent_shape",
    cases=lambda: {
        f"{size} x {size} pixels, f = {f}, {c} channels": (size, f, c)
        for size, f, c in ((64, 8, 16), (32, 4, 4), (512, 8, 4))
    },
    right=_shape,
    mistakes={
        "PyTorch's order is channels, height, width: the channels come first.": (
            lambda size, f, c: (*_shape(size, f, c)[1:], c)
        ),
        "These are all the pixels: a position stands for f of them, from left to right.": (
            lambda size, f, c: _shape(size, 1, c)
        ),
        "You divide by f twice. A side of image_size pixels has image_size / f positions.": (
            lambda size, f, c: _shape(size, f, c, power=2)
        ),
        "You multiply by f. The latent is smaller than the picture: divide.": (
            lambda size, f, c: _shape(size, f, c, power=-1)
        ),
        "3 is the number of a picture's colours. The latent has `channels` numbers at each "
        "position.": lambda size, f, c: _shape(size, f, 3),
        "The batch is not part of it: three numbers, for one latent.": (
            lambda size, f, c: (1, *_shape(size, f, c))
        ),
        "One side is missing: the latent has a height and a width.": (
            lambda size, f, c: _shape(size, f, c)[:2]
        ),
    },
    hints=(
        "A row of the picture has image_size pixels. How many groups of f pixels is that?",
        "Height and width are both image_size // f. Where do the channels stand in "
        "(B, C, H, W)?",
        "return channels, image_size // f, image_size // f",
    ),
    praise="The last case is Stable Diffusion's: 512 x 512 pixels become 64 x 64 positions.",
    whole=True,
)


def _calls(n, steps, guidance):
    return n * steps * (1 if guidance == 1 else 2)


unet_calls = Exercise(
    name="unet_calls",
    cases=lambda: {
        f"n = {n}, steps = {s}, guidance = {w}": (n, s, w)
        for n, s, w in ((1, 20, 2.0), (8, 50, 1.0), (4, 1000, 7.5), (2, 10, 0.5), (3, 5, 0.0))
    },
    right=_calls,
    mistakes={
        "With guidance the model answers twice a step: with the caption and without it.": (
            lambda n, steps, guidance: n * steps
        ),
        "At guidance = 1 the answer without the caption is left out: one call a step.": (
            lambda n, steps, guidance: 2 * n * steps
        ),
        "It is the other way round: at guidance = 1 one call a step, else two.": (
            lambda n, steps, guidance: n * steps * (2 if guidance == 1 else 1)
        ),
        "A guidance below 1 needs both answers too; only at 1 does one of them cancel out.": (
            lambda n, steps, guidance: n * steps * (2 if guidance > 1 else 1)
        ),
        "Every one of the n pictures goes through the model, at each step.": (
            lambda n, steps, guidance: _calls(1, steps, guidance)
        ),
        "guidance says how much the caption counts, not how often the model is asked.": (
            lambda n, steps, guidance: n * steps * guidance
        ),
        "The second call is one more at each step, not one more in all.": (
            lambda n, steps, guidance: n * (steps + (guidance != 1))
        ),
    },
    hints=(
        "How often is the model asked in one step of one picture?",
        "Twice if guidance is not 1, else once. That happens at each step, for each picture.",
        "return n * steps * (1 if guidance == 1 else 2)",
    ),
    praise="Notebook 08 is about fewer steps: that is where time is to be saved.",
)

EXERCISES = (latent_shape, unet_calls)
