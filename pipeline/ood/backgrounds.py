"""What is put behind the people: a random picture of a folder, or stripes."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from .stripes import draw_stripes, stripe_picture

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class Backgrounds:
    """A supply of backgrounds.

    Args:
        folder: pictures anywhere below it (Places365, VQGAN-CLIP, ...); None: stripes.

    Raises:
        InputError: no such folder, or no picture in it.
    """

    def __init__(self, folder: Path | None):
        self._files: list[Path] = []
        self._folder = folder
        if folder is not None:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; expected background pictures, or none for stripes")
            self._files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
            if not self._files:
                raise InputError(f"{folder}: no pictures in it; looked for {', '.join(sorted(PICTURES))}")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
        """One background, uint8 (height, width, 3), and its name; stretched to the frame, bicubic, as published."""
        if self._folder is None:
            picture, name = Image.fromarray(stripe_picture(draw_stripes(rng))), "stripes"
        else:
            path = self._files[int(rng.integers(len(self._files)))]
            name = path.relative_to(self._folder).as_posix()
            try:
                with Image.open(path) as image:
                    picture = image.convert("RGB")
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise InputError(f"{path}: not a readable picture ({error}); replace or remove it") from None
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)), name
