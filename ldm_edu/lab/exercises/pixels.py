"""Exercises of notebook 04, Diffuse in pixels."""

import torch

from ldm_edu.lab.exercises.checking import Exercise
from ldm_edu.schedule import NoiseSchedule

_ALPHA_BAR = NoiseSchedule("cosine").alpha_bar


def _snr_weight(t, alpha_bar, gamma, cut=torch.clamp_max, per=1.0, shift=0, root=1.0):
    ab = alpha_bar[t - shift] ** root
    snr = ab / (1 - ab)
    return cut(snr, gamma) / (per + snr if per is not None else 1)


snr_weight = Exercise(
    name="snr_weight",
    cases=lambda: {
        f"gamma = {gamma}": (torch.tensor([1, 60, 300, 500, 800, 999]), _ALPHA_BAR, gamma)
        for gamma in (5.0, 1.0)
    },
    right=_snr_weight,
    mistakes={
        "This is the weight of an error of x0. For v, divide it by SNR + 1.": (
            lambda *args: _snr_weight(*args, per=None)
        ),
        "You divide by SNR, which is right for an error of eps. For v it is SNR + 1.": (
            lambda *args: _snr_weight(*args, per=0.0)
        ),
        "You take the larger of the two. The SNR is cut off at gamma: take the smaller.": (
            lambda *args: _snr_weight(*args, cut=torch.clamp_min)
        ),
        "The SNR is not cut off: take gamma where that is smaller.": (
            lambda *args: _snr_weight(*args, cut=lambda snr, gamma: snr)
        ),
        "This is off by one: alpha_bar[0] is the clean level, so level t is alpha_bar[t].": (
            lambda *args: _snr_weight(*args, shift=1)
        ),
        "alpha_bar and 1 - alpha_bar are variances already, and the SNR is their ratio: there "
        "is no root.": lambda t, ab, gamma: (
            torch.clamp_max((ab[t] / (1 - ab[t])) ** 0.5, gamma)
            / (1 + (ab[t] / (1 - ab[t])) ** 0.5)
        ),
    },
    hints=(
        "First the SNR at each t: alpha_bar[t] / (1 - alpha_bar[t]).",
        "snr.clamp(max=gamma) takes the smaller of the two. That is the weight of an error of "
        "x0; an error of v is SNR + 1 times as large.",
        "snr = alpha_bar[t] / (1 - alpha_bar[t]), and return snr.clamp(max=gamma) / (snr + 1).",
    ),
    praise="It is the library's loss_weight: half-way levels count most, both ends little.",
)


def _average_share(k, decay, power=0, rest=True):
    return (1 - decay if rest else 1) * decay ** (k + power)


average_share = Exercise(
    name="average_share",
    cases=lambda: {
        f"k = {k}, decay = {d}": (k, d)
        for k, d in ((0, 0.9), (1, 0.9), (10, 0.9), (500, 0.999))
    },
    right=_average_share,
    mistakes={
        "The new weights enter with 1 - decay, which is missing.": (
            lambda k, d: _average_share(k, d, rest=False)
        ),
        "This is off by one: the newest weights, k = 0, have not been shrunk yet.": (
            lambda k, d: _average_share(k, d, power=1)
        ),
        "This is off by one: k steps ago means shrunk k times, not k - 1.": (
            lambda k, d: _average_share(k, d, power=-1)
        ),
        "decay and 1 - decay are swapped: the old average is what is kept.": (
            lambda k, d: _average_share(k, 1 - d)
        ),
        "Each step multiplies by decay: take the power, not the product.": (
            lambda k, d: (1 - d) * d * k
        ),
    },
    hints=(
        "How much do this step's weights count, k = 0? And what does the next step do to that?",
        "They enter with 1 - decay. Each later step multiplies all that is in the average by "
        "decay.",
        "(1 - decay) * decay**k",
    ),
    praise="All shares add up to 1, and half of it lies in the last 0.7 / (1 - decay) steps.",
)


def _conv_flop(c_in, c_out, k, height, width, area=2, two=2, bias=0):
    return two * (c_in * k**area + bias) * c_out * height * width


conv_flop = Exercise(
    name="conv_flop",
    cases=lambda: {
        f"{i} to {o} channels, {k} x {k}, on {h} x {w}": (i, o, k, h, w)
        for i, o, k, h, w in ((3, 24, 3, 32, 32), (48, 96, 3, 8, 8), (2, 4, 1, 3, 5))
    },
    right=_conv_flop,
    mistakes={
        "A product and its addition are two operations: the factor 2 is missing.": (
            lambda *args: _conv_flop(*args, two=1)
        ),
        "The kernel is k wide and k high: k * k products for each input channel.": (
            lambda *args: _conv_flop(*args, area=1)
        ),
        "Channels multiply: every output channel looks at every input channel.": (
            lambda i, o, k, h, w: 2 * (i + o) * k**2 * h * w
        ),
        "This counts one place. The kernel is applied at height * width places.": (
            lambda i, o, k, h, w: _conv_flop(i, o, k, 1, 1)
        ),
        "This counts one output channel. There are c_out of them.": (
            lambda i, o, k, h, w: _conv_flop(i, 1, k, h, w)
        ),
        "The output channels are missing, and the input channels counted twice.": (
            lambda i, o, k, h, w: _conv_flop(i, i, k, h, w)
        ),
    },
    hints=(
        "Take one number of the output: one channel at one place. How many products does it "
        "add up?",
        "It adds up c_in * k * k products, and each is a multiplication and an addition. The "
        "output has c_out * height * width numbers.",
        "2 * c_in * k * k * c_out * height * width",
    ),
    praise="PyTorch's counter says the same. Twice the side is four times the work.",
)

EXERCISES = (snr_weight, average_share, conv_flop)
