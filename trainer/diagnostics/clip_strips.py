"""Clips as pictures for a web page: all frames side by side in one image, played by the style sheet."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, features

GAMMA = 0.6  # of the heat: lifts the faint halves of a map, which a linear scale would hide


def strip(frames: np.ndarray) -> np.ndarray:
    """uint8 (T,H,W,3) -> uint8 (H, T*W, 3)."""
    return np.concatenate(list(frames), axis=1)


def data_uri(image: np.ndarray, quality: int = 82) -> str:
    """A picture as text for a page that needs no other file.

    Args:
        image: uint8 (H,W,3).
        quality: of the lossy compression, 0 to 100.
    """
    kind = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay(frames: np.ndarray, heat: np.ndarray, size: int | None = None) -> np.ndarray:
    """Heat over grey frames: bright where the evidence is, dark elsewhere.

    Args:
        frames: uint8 (T,H,W,3).
        heat: (T,H,W), not negative; scaled to the clip's own maximum, and a clip without any heat stays dark.
        size: side of the result, the frames' own by default.

    Returns:
        uint8 (T, size, size, 3).
    """
    import matplotlib

    size = size if size is not None else int(frames.shape[1])
    top = float(heat.max())
    level = (heat / top if top > 0 else np.zeros_like(heat)) ** GAMMA
    colours = matplotlib.colormaps["inferno"]
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for t, (frame, share) in enumerate(zip(frames, level, strict=True)):
        grey = np.asarray(
            Image.fromarray(frame).convert("L").resize((size, size), Image.Resampling.BICUBIC), np.float32
        )
        share = np.asarray(
            Image.fromarray(share.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        ).clip(0, 1)[..., None]
        colour = np.asarray(colours(share[..., 0]))[..., :3] * 255
        out[t] = (grey[..., None] * 0.55 * (1 - share) + colour * share * 0.9 + grey[..., None] * 0.1).clip(0, 255)
    return out


def outline(frames: np.ndarray, masks: np.ndarray, colour: Sequence[int] = (255, 255, 255)) -> np.ndarray:
    """A line around the foreground of each frame.

    Args:
        frames: uint8 (T,H,W,3).
        masks: (T,h,w), share of each pixel that is foreground; scaled to the frames.
    """
    out = frames.copy()
    for t, mask in enumerate(masks):
        scaled = Image.fromarray((mask * 255).clip(0, 255).astype(np.uint8))
        inside = np.asarray(scaled.resize(frames.shape[2:0:-1], Image.Resampling.BICUBIC)) > 127
        padded = np.pad(inside, 1, mode="edge")
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside
        out[t][inside & ~inner] = colour
    return out
