"""Solutions of 00, Start here."""


def latent_shape(image_size: int, f: int, channels: int) -> tuple[int, int, int]:
    """Channels first; a side of image_size pixels has image_size / f positions."""
    side = image_size // f
    return channels, side, side


def unet_calls(n: int, steps: int, guidance: float) -> int:
    """Each step asks once a picture, or twice where guidance compares with no caption."""
    return n * steps * (1 if guidance == 1 else 2)
