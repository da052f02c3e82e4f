"""What is trained on each data set: in minutes by the quick start, in hours to be shipped."""

from dataclasses import dataclass, replace

from ldm_edu.autoencoder import AutoencoderConfig
from ldm_edu.unet import UNetConfig


@dataclass(frozen=True)
class Recipe:
    """One data set's autoencoder and denoiser, sized for two CPU cores.

    A U-Net with a `context_dim` learns from captions, with a text encoder of that width.
    """

    data: str  # name of the data set
    autoencoder: AutoencoderConfig
    unet: UNetConfig
    autoencoder_share: float = 0.2  # of a quick start's minutes; the denoiser has the rest
    steps: tuple[int, int] = (3000, 15000)  # of each stage, where time does not count
    flip: bool = True  # mirror images count as data
    one_object: bool = False  # of shapes, the pictures with one object only
    batch_size: int = 32  # 64 gives a few more images a second, but far fewer steps
    autoencoder_lr: float = 1e-3
    unet_lr: float = 1e-3
    kl_weight: float = 1e-6  # LDM's, on the sum over an image
    min_snr: float | None = 5.0
    snr_floor: float = 0.0  # above 0, levels near pure noise count, where captions decide
    latent_noise: float = 0.1  # most noise a decoder learns to bear, in stds of the latent
    caption_drop: float = 0.1  # share of captions emptied in training, for guidance
    guidance: float = 2.0  # what the model samples with unless told otherwise
    lowest: int = 0  # no level below is visited in sampling: the last step goes on to clean
    ema: float = 0.9995
    whiten: float = 0.5  # how far PCA's channels start alike: 0 as they are, 1 of one variance


QUICKSTART = {
    # 32x32 -> 8x8x4: flat shapes need few numbers. One object and no captions: five minutes
    # are short
    "shapes": Recipe(
        "shapes",
        AutoencoderConfig(
            latent_channels=4, channels=(32, 64), blocks=1, patch=2, groups=8, linear=True
        ),
        UNetConfig(4, 4, channels=(48, 96), blocks=1, attention=(False, False), groups=8),
        autoencoder_share=0.2,  # 0.13 is too little: one reconstruction in twelve is refused
        flip=False,
        one_object=True,
        autoencoder_lr=2e-3,
        unet_lr=2e-3,
        latent_noise=0.4,  # outlines survive what five minutes leave wrong
    ),
    # 32x32 -> 8x8x8
    "cifar10": Recipe(
        "cifar10",
        AutoencoderConfig(
            latent_channels=8, channels=(64, 128), blocks=1, patch=2, groups=16, linear=True
        ),
        UNetConfig(
            8, 8, channels=(64, 128), attention=(False, True), groups=16, context_dim=64
        ),
        autoencoder_share=0.25,
        flip=False,  # in half an hour the denoiser sees each image a few times only
    ),
    # 64x64 -> 8x8x16
    "celeba64": Recipe(
        "celeba64",
        AutoencoderConfig(
            latent_channels=16, channels=(64, 128), blocks=1, patch=4, groups=16, linear=True
        ),
        UNetConfig(
            16, 16, (64, 128), attention=(False, True), groups=16, context_dim=64, dropout=0.1
        ),
        autoencoder_share=0.3,
    ),
}

# The shipped models. A decoder that bears noise forgives what a denoiser leaves wrong
TRAINED = {
    "shapes": Recipe(
        "shapes",
        AutoencoderConfig(
            latent_channels=4, channels=(32, 64), blocks=1, patch=2, groups=8, linear=True
        ),
        UNetConfig(4, 4, (48, 96), blocks=1, groups=8, context_dim=96, coordinates=True),
        steps=(6000, 22000),
        flip=False,  # a mirrored place would belie its caption
        autoencoder_lr=2e-3,
        latent_noise=0.3,
        snr_floor=0.3,  # a picture's layout is decided near pure noise
    ),
    # narrower than the quick start's: below 15 MB, and more steps in the same time
    "cifar10": replace(
        QUICKSTART["cifar10"],
        unet=replace(
            QUICKSTART["cifar10"].unet, channels=(56, 112), groups=8, coordinates=True
        ),
        steps=(1500, 18000),
        flip=True,
        latent_noise=0.2,
        snr_floor=0.1,
    ),
    "celeba64": replace(
        QUICKSTART["celeba64"],
        unet=replace(
            QUICKSTART["celeba64"].unet, channels=(56, 112), groups=8, coordinates=True
        ),
        steps=(3000, 24000),
        latent_noise=0.2,
        snr_floor=0.1,
        lowest=120,  # its guesses below are poor, and many of them add up to texture
    ),
}
