"""Clip preparation as a custom op: Triton on CUDA, plain torch elsewhere."""

import torch

from .torch_form import allocate_clips, clip_prep_torch
from .triton_form import clip_prep_triton

clip_prep_op = torch.library.custom_op("unstill::clip_prep", clip_prep_torch, mutates_args=(), device_types="cpu")
clip_prep_op.register_kernel("cuda")(clip_prep_triton)


@clip_prep_op.register_fake
def _(frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint):
    return allocate_clips(frames, size, dtype, channels_last, static, joint)
