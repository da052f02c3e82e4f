"""Solutions of 04, Diffuse in pixels."""

from torch import Tensor


def snr_weight(t: Tensor, alpha_bar: Tensor, gamma: float) -> Tensor:
    """Min-SNR weight of the squared error of v at levels t."""
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return snr.clamp(max=gamma) / (snr + 1)


def average_share(k: int, decay: float) -> float:
    """How much the weights of k steps ago count in the running average."""
    return (1 - decay) * decay**k


def conv_flop(c_in: int, c_out: int, k: int, height: int, width: int) -> int:
    """Operations of a k x k convolution that makes a map of height x width."""
    products = c_in * k * k  # of one number of the output
    return 2 * products * c_out * height * width
