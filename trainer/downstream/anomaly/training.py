"""Bags of features, and the training of a head on them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ....pipeline.errors import InputError
from ....pipeline.progress import Progress
from ..feature_folder import FeatureFolder
from .annotations import TrainVideo
from .heads import HeadRecipe


def bag_of(features: np.ndarray, recipe: HeadRecipe) -> np.ndarray:
    """float32 (T, crops, D) -> (crops, 32, D): the mean of each segment, of length 1 if wanted (zeros stay zeros)."""
    bounds = recipe.segments(len(features))
    bag = np.stack([features[first:end].mean(0) for first, end in bounds], axis=1)
    if recipe.unit_length:
        bag /= np.maximum(np.linalg.norm(bag, axis=2, keepdims=True), 1e-12)
    return bag


def read_bags(folder: FeatureFolder, videos: Sequence[TrainVideo], recipe: HeadRecipe) -> tuple[Tensor, Tensor]:
    """Bags of the abnormal and of the normal videos, float32 (N, crops, 32, D) each.

    Raises:
        InputError: features of a video are missing or damaged, or arrays differ in crops or width.
    """
    keys = [folder.key_of(video.video) for video in videos]
    missing = [video.video for video, key in zip(videos, keys, strict=True) if key is None]
    if missing:
        raise InputError(
            f"{folder.path}: no features of {len(missing)} of {len(videos)} training videos, first {missing[0]}; make "
            "them, or take the videos out of the list"
        )
    bags: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    shape = None
    with Progress("reading features", len(keys), "videos") as progress:
        for key, video in zip(keys, videos, strict=True):
            assert key is not None
            features = folder.read(key)
            shape = shape or features.shape[1:]
            if features.shape[1:] != shape:
                raise InputError(f"{folder.files[key]}: crops and width {features.shape[1:]}, of others {shape}")
            bags[not video.abnormal].append(bag_of(features, recipe))
            progress.advance(1)
    return torch.from_numpy(np.stack(bags[0])), torch.from_numpy(np.stack(bags[1]))


def train_head(
    recipe: HeadRecipe, abnormal: Tensor, normal: Tensor, *, steps: int, seed: int, device: str
) -> nn.Module:
    """Train a head; equal inputs and seed give equal weights on one machine.

    A batch has ``recipe.bags`` videos of either kind, without repetition in it where there are as many, and of each one
    crop at random.

    Args:
        recipe: of the head.
        abnormal, normal: bags (N, crops, 32, D).
        steps: batches.
        seed: of weights, dropout and batches.
        device: where it trains.

    Returns:
        The head, in evaluation mode.

    Raises:
        InputError: the loss is no longer finite.
    """
    draw = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[] if device == "cpu" else None), Progress("head", steps, "steps") as progress:
        torch.manual_seed(seed)
        head = recipe.build(abnormal.shape[-1]).to(device).train()
        optimiser = recipe.optimiser(list(head.parameters()))
        for step in range(steps):
            batch = [_draw(bags, recipe.bags, draw).to(device) for bags in (abnormal, normal)]
            loss = head.loss(*batch)  # type: ignore[operator]  (both heads have one)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if step % 100 == 99 or step == steps - 1:
                if not bool(torch.isfinite(loss)):
                    raise InputError(f"head, step {step + 1}: the loss is not finite; are the features very large?")
                progress.advance(step % 100 + 1)
    return head.eval()


def score_rows(head: nn.Module, recipe: HeadRecipe, features: np.ndarray, device: str) -> np.ndarray:
    """float64 (T,): the score of each row of a video, the mean over crops.

    A row behind the last segment has the score of that segment. Sultani's code leaves it, and what follows, at 0.

    Args:
        head: from ``train_head``.
        recipe: of the head.
        features: float32 (T, crops, D).
        device: where the head is.
    """
    bags = bag_of(features, recipe) if recipe.segments_in_test else features.transpose(1, 0, 2)
    with torch.inference_mode():
        scores = head(torch.from_numpy(np.array(bags)).to(device)).double().mean(0).cpu().numpy()
    if not recipe.segments_in_test:
        return scores
    rows = np.full(len(features), scores[-1])
    for (first, end), score in zip(recipe.segments(len(features)), scores, strict=True):
        rows[first:end] = score  # of a short video, where several segments are one row, the last counts
    return rows


def _draw(bags: Tensor, count: int, draw: np.random.Generator) -> Tensor:
    """(count, 32, D): some bags, of each a crop."""
    rows = draw.choice(len(bags), count, replace=len(bags) < count)
    return bags[torch.from_numpy(rows), torch.from_numpy(draw.integers(bags.shape[1], size=count))]
