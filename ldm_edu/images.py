"""Pictures: float tensors to 8-bit and back, grids, files, and latents made visible."""

import io
import os
from pathlib import Path

import torch
from torch import Tensor

from ldm_edu.errors import InputError, StorageError


def require_uint8(images: Tensor, name: str, axes: str) -> None:
    """Check dtype and axes at the door; `axes` is like "N 3 H W", a digit is an exact size.

    Raises InputError when `images` is no uint8 tensor of that shape, or is empty.
    """
    wanted = f"{name} must be a uint8 tensor ({axes.replace(' ', ', ')})"
    if not isinstance(images, Tensor):
        raise InputError(f"{wanted}, got {type(images).__name__}")
    sizes = axes.split()
    same = images.ndim == len(sizes) and all(
        n == int(axis) if axis.isdigit() else n > 0
        for n, axis in zip(images.shape, sizes, strict=True)
    )
    if images.dtype != torch.uint8 or not same:
        raise InputError(f"{wanted}, not empty, got {images.dtype} {tuple(images.shape)}")


def require_latents(z: Tensor, name: str = "z") -> None:
    """Check that z is a finite, non-empty float tensor (B, C, h, w), else InputError."""
    wanted = f"{name} must be a finite float tensor (B, C, h, w)"
    if not isinstance(z, Tensor):
        raise InputError(f"{wanted}, got {type(z).__name__}")
    if not z.is_floating_point() or z.ndim != 4 or z.numel() == 0:
        raise InputError(f"{wanted}, not empty, got {z.dtype} {tuple(z.shape)}")
    if not z.isfinite().all():
        raise InputError(
            f"{wanted}, got {int((~z.isfinite()).sum())} values that are not finite"
        )


def to_uint8(x: Tensor) -> Tensor:
    """Float images in [-1, 1], (B, 3, H, W), to uint8 on the CPU: the one place that clamps.

    Raises InputError for another shape or dtype, or for NaN and infinity.
    """
    require_latents(x, "x")
    if x.shape[1] != 3:
        raise InputError(f"x must have 3 colour channels (B, 3, H, W), got {tuple(x.shape)}")
    levels = (x.detach().cpu().float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images (B, 3, H, W) to float32 in [-1, 1]; `to_uint8` gives them back exactly."""
    require_uint8(images, "images", "B 3 H W")
    return images.float() / 127.5 - 1


def image_grid(
    images: Tensor, columns: int, pad: int = 2, scale: int = 1, fill: int = 255
) -> Tensor:
    """uint8 (N, 3, H, W) laid out row by row -> uint8 (3, H', W').

    Each pixel becomes scale x scale; `pad` output pixels of grey level `fill` lie between the
    images (none around them) and fill the empty places of the last row.
    Raises InputError for a wrong tensor or numbers out of range.
    """
    require_uint8(images, "images", "N 3 H W")
    if columns < 1 or scale < 1 or pad < 0 or not 0 <= fill <= 255:
        raise InputError(
            "need columns >= 1, scale >= 1, pad >= 0 and fill in 0..255, "
            f"got {columns}, {scale}, {pad} and {fill}"
        )
    images = images.detach().cpu()
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, _, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    size = (3, rows * (height + pad) - pad, columns * (width + pad) - pad)
    grid = torch.full(size, fill, dtype=torch.uint8)
    for k in range(n):
        top, left = (k // columns) * (height + pad), (k % columns) * (width + pad)
        grid[:, top : top + height, left : left + width] = images[k]
    return grid


def _encode(image: Tensor, kind: str, **options: object) -> bytes:
    from PIL import Image

    require_uint8(image, "image", "3 H W")
    pixels = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def encode_png(image: Tensor) -> bytes:
    """uint8 (3, H, W) as the bytes of a PNG file (lossless)."""
    return _encode(image, "PNG", optimize=True)


def encode_webp(image: Tensor, quality: int = 88, lossless: bool = False) -> bytes:
    """uint8 (3, H, W) as the bytes of a WebP file; each side at most 16383 pixels."""
    require_uint8(image, "image", "3 H W")
    if max(image.shape) > 16383:
        raise InputError(f"WebP sides end at 16383 pixels, got {tuple(image.shape[1:])}")
    return _encode(image, "WEBP", quality=quality, lossless=lossless, method=4)


def write_atomic(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all: a temporary sibling, then os.replace.

    Raises StorageError when the folder is missing, full, or not writable.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write {path}: {reason}; choose a folder you own") from error
    return path


def save_png(path: str | Path, image: Tensor) -> Path:
    """Save uint8 (3, H, W) as a PNG, atomically; StorageError when it cannot be written."""
    return write_atomic(path, encode_png(image))


def _robust_unit(values: Tensor) -> Tensor:
    # 1 % to 99 % of the values become 0 to 1
    ordered = values.flatten().sort().values
    last = len(ordered) - 1
    low, high = ordered[round(0.01 * last)], ordered[round(0.99 * last)]
    if high - low < 1e-9:  # flat, up to rounding
        return torch.full_like(values, 0.5)
    return ((values - low) / (high - low)).clamp(0, 1)


def latent_to_rgb(z: Tensor) -> Tensor:
    """Latents (B, C, h, w) as colours, uint8 (B, 3, h, w).

    The first three principal components over all positions of the batch become red, green and
    blue, each scaled so that its 1 % to 99 % range fills 0..255. The sign of a component is
    fixed by making its largest loading positive; a component that C < 3 lacks is mid-grey.
    Colours compare only within one call: pass all the frames of a film at once.
    Raises InputError when z is not a finite float (B, C, h, w).
    """
    require_latents(z)
    b, c, h, w = z.shape
    points = z.detach().cpu().double().permute(0, 2, 3, 1).reshape(-1, c)  # (B h w, C)
    points = points - points.mean(0)
    axes = torch.linalg.eigh(points.T @ points).eigenvectors.flip(1)[:, :3]  # (C, 3)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = points @ (axes * largest.sign())
    rgb = torch.full((len(points), 3), 0.5, dtype=torch.float64)
    for k in range(scores.shape[1]):
        rgb[:, k] = _robust_unit(scores[:, k])
    return (rgb * 255).round().to(torch.uint8).reshape(b, h, w, 3).permute(0, 3, 1, 2)


def channel_images(z: Tensor) -> Tensor:
    """Each channel of z (B, C, h, w) as a grey picture, uint8 (B, C, h, w).

    One scale for all channels (1 % to 99 % of all values), so that a flat channel looks flat.
    Raises InputError when z is not a finite float (B, C, h, w).
    """
    require_latents(z)
    return (_robust_unit(z.detach().cpu().double()) * 255).round().to(torch.uint8)
