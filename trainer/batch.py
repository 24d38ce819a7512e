"""A batch on its way from the clip kernel to the loss, and what mixing its samples means for each of its tensors.

Samples are never reordered. A blend names each row's ``partner`` and takes everything of that other sample through this
one index, so that no label, static clip or per-sample tensor can end up with another sample's clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SCENE, STATIC_TARGET, PEOPLE, DRAWS, STEADY = "scene", "static_target", "people", "draws", "steady"


@dataclass(frozen=True)
class Batch:
    """B samples.

    Attributes:
        motion: (B,3,T,h,w), normalised.
        static: (B,3,1,h,w), the frame that each static clip repeats, or None; ``passes.static_leaf`` repeats it.
        target: int64 (B,), or a distribution over classes, floating (B,C).
        static_index: int64 (B,), which frame of the clip the static clip repeats.
        per_sample: more tensors (B,...) by name. ``scene``: distribution over scenes (B,K). ``people``: uint8
            (B,1,T,h,w), 1 where a person is. ``static_target``: labels of the static clips where they are not
            ``target``. ``draws``: int64 (B,), keys of what a network draws, see ``sample_dropout``. ``steady``:
            bool (B,), whether the camera stands still, see ``clip_view``. ``clean``, ``clean_weight``: see
            ``consistency``.
        second_view: (B,3,T,h,w), another form of the same clips with the same labels, or None. The loss on ``motion``
            is taken on it, too.
        second_share: what that counts; the loss on ``motion`` counts the rest.
    """

    motion: Tensor
    static: Tensor | None
    target: Tensor
    static_index: Tensor | None = None
    per_sample: dict[str, Tensor] = field(default_factory=dict)
    second_view: Tensor | None = None
    second_share: float = 0.0

    def __len__(self) -> int:
        return len(self.target)

    def select(self, rows: slice | Tensor) -> Batch:
        """Some samples, each with everything that belongs to it."""
        take = lambda tensor: None if tensor is None else tensor[rows]  # noqa: E731
        return Batch(
            self.motion[rows],
            take(self.static),
            self.target[rows],
            take(self.static_index),
            {name: tensor[rows] for name, tensor in self.per_sample.items()},
            take(self.second_view),
            self.second_share,
        )

    def with_second_view(self, clips: Tensor, share: float) -> Batch:
        """The batch with ``clips`` (B,3,T,h,w) as its second view."""
        return replace(self, second_view=clips, second_share=share)

    def blended(
        self,
        motion: Tensor,
        partner: Tensor | None = None,
        *,
        label_share: Tensor | None = None,
        scene_share: Tensor | None = None,
        people: Tensor | None = None,
        classes: int = 0,
        static_from: str = "original",
    ) -> Batch:
        """The batch after its motion clips were blended with those of other samples.

        Args:
            motion: the blended clips.
            partner: int64 (B,), the row that each was blended with; itself where it was left alone.
            label_share: (B,), how much of the label stays the sample's own; None: all of it.
            scene_share: (B,), how much of the scene's distribution stays the sample's own; None: all of it.
            people: (B,1,T,h,w), where people are in the blended clips; None: where they were.
            classes: C, for labels that become distributions.
            static_from: "original": static clips, and their labels, stay those of the clips before the blend;
                "augmented": a frame of the blended clip, with its label.
        """
        target, per_sample = self.target, dict(self.per_sample)
        if label_share is not None:
            own = distribution(target, classes)
            target = mix(own, own[partner], label_share)
        if scene_share is not None and SCENE in per_sample:
            per_sample[SCENE] = mix(per_sample[SCENE], per_sample[SCENE][partner], scene_share)
        if people is not None:
            per_sample[PEOPLE] = people
        static = self.static
        if static is not None and static_from == "augmented":
            assert self.static_index is not None, "static clips come with the frame that they repeat"
            static = one_frame(motion, self.static_index)
        elif static is not None and label_share is not None:
            per_sample[STATIC_TARGET] = self.target
        return replace(self, motion=motion, static=static, target=target, per_sample=per_sample)


def distribution(target: Tensor, classes: int) -> Tensor:
    """Labels int64 (B,) as float32 (B,C), NaN for a label out of range; distributions are returned as they are.

    ``one_hot`` reads the labels on a CPU, and on a GPU ends the process where one is out of range.
    """
    import torch

    if target.is_floating_point():
        return target
    label = target[:, None]
    known = (label >= 0) & (label < classes)
    return torch.where(known, (label == torch.arange(classes, device=target.device)).float(), torch.nan)


def row_targets(
    target: Tensor, per_sample: dict[str, Tensor] | None, n: int, classes: int
) -> tuple[Tensor, int, Tensor]:
    """Targets for the losses of [motion; static] logits, ``n`` rows each.

    Returns:
        ``(labels, n_motion, static_target)``: what ``RowLosses`` takes, and the labels of the static clips. Where these
        differ from the motion clips' there is one target a row, and all rows count as motion.
    """
    import torch

    static_target = (per_sample or {}).get(STATIC_TARGET)
    if static_target is None:
        return target, n, target
    return torch.cat([distribution(t, classes) for t in (target, static_target)]), 2 * n, static_target


def mix(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """share * own + (1 - share) * other, one share (B,) a sample; computed in float32 at least and rounded once."""
    import torch

    share = broadcast_over(share.to(torch.promote_types(own.dtype, torch.float32)), own)
    return (share * own + (1 - share) * other).to(own.dtype)


def one_frame(clips: Tensor, index: Tensor) -> Tensor:
    """One frame of each clip (B,C,T,h,w), as (B,C,1,h,w); ``index`` int64 (B,)."""
    return clips.gather(2, index.view(-1, 1, 1, 1, 1).expand(-1, clips.shape[1], 1, *clips.shape[3:]))


def repeat_frame(clips: Tensor, index: Tensor) -> Tensor:
    """One frame of each clip (B,C,T,h,w), repeated over time; ``index`` int64 (B,)."""
    return one_frame(clips, index).expand_as(clips).contiguous(memory_format=memory_layout(clips))


def memory_layout(clips: Tensor) -> torch.memory_format:
    """channels_last_3d where (B,C,T,h,w) clips have it, else contiguous."""
    import torch

    last = clips.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format


def people_of_both(batch: Batch, others: Tensor | None, frame: Tensor, share: Tensor) -> Tensor | None:
    """Where people are after one frame of other clips was blended into all frames of the batch's.

    Args:
        others: (B,1,T,h,w), where they are in the other clips; None: the run does not ask.
        frame: int64 (B,), which frame was blended in.
        share: (B,), of the batch's own clips: 1 where nothing was blended in.
    """
    import torch

    if others is None:
        return None
    both = torch.maximum(batch.per_sample[PEOPLE], repeat_frame(others, frame))
    return torch.where(broadcast_over(share < 1, both), both, batch.per_sample[PEOPLE])


def broadcast_over(values: Tensor, like: Tensor) -> Tensor:
    """(B,) shaped to broadcast over the other axes of ``like`` (B,...)."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def chosen_rows(count: int, prob: float, rng: np.random.Generator) -> np.ndarray:
    """int64 (n,): the rows that a per-sample coin of this probability picks, ascending."""
    return np.flatnonzero(rng.random(count) < prob)


def shuffled_partners(count: int, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 (count,): each chosen row's partner in a permutation of the complete batch; the other rows are their own.

    As in StillMix's code, which blends all rows and keeps the blended form of the chosen ones: a partner need not be
    chosen itself.
    """
    return only_chosen(rng.permutation(count), chosen)


def only_chosen(partner: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """int64 (n,): the chosen rows' partners; the other rows are their own."""
    kept = np.arange(len(partner))
    kept[chosen] = partner[chosen]
    return kept


def share_where(count: int, chosen: np.ndarray, share: float, device: torch.device) -> Tensor:
    """float32 (count,): ``share`` for the chosen rows, 1 for the others."""
    shares = np.ones(count, np.float32)
    shares[chosen] = share
    return upload(shares, device)


def to_device(rows: np.ndarray, device: torch.device) -> Tensor:
    """Row numbers as int64 on the device."""
    return upload(np.asarray(rows, np.int64), device)


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; the host does not wait, as it would for more than 64 KB of memory that is not pinned."""
    import torch

    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
