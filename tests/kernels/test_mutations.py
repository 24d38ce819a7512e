"""The checks must be able to fail: every one of these broken kernels has to be caught by one of them.

A mutant is the kernel's file with one substitution, loaded as a module of its own. Interpreted only: on a GPU a mutant
that reads outside its tensors would end the process. None of them writes outside.
"""

import importlib
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kernel_checks import (
    check_attention,
    check_boundary,
    check_clamping,
    check_clips,
    check_gelu_products,
    check_loss_policy,
    check_losses,
    check_strided_attention,
    check_strided_losses,
    check_weighted_losses,
)

import unstill.kernels.launch_configs
from unstill.kernels.launch_configs import AttentionTile
from unstill.kernels.static_losses import row_loss

FOLDER = Path(unstill.kernels.launch_configs.__file__).parent
NUMBER = itertools.count()

CLIP_PREP = {
    "never mirrored": ("tl.where(mirrored, WIDTH - 1 - x, x)", "x"),
    "mirrored about the wrong column": ("WIDTH - 1 - x", "WIDTH - 2 - x"),
    "blue for green": ("tl.load(source + 1,", "tl.load(source + 2,"),
    "bias of another channel, planar": ("normalise(green, scale1, bias1", "normalise(green, scale1, bias0"),
    "bias of another channel, channels-last": ("tl.where(channel == 1, bias1, bias2)", "bias1"),
    "top ignored": ("(first_row + y) * frames_y", "y * frames_y"),
    "clamped one row too low": ("(tl.load(top + clip), 0), last_top)", "(tl.load(top + clip), 0), last_top + 1)"),
    "left never zero": ("tl.maximum(tl.load(left + clip), 0)", "tl.maximum(tl.load(left + clip), 1)"),
    "groups of frames after the first lost": ("t = t0 + lane // BLOCK", "t = lane // BLOCK"),
    "static clip from frame 0": ("source + chosen * frames_t", "source + 0 * frames_t"),
    "static frame at the start of a group lost": ("(chosen >= t0)", "(chosen > t0)"),
    "rounded twice": (
        "(pixel.to(tl.float32) * scale + bias)",
        "((pixel.to(tl.float32) * scale).to(dtype).to(tl.float32) + bias)",
    ),
    "wrong half of the joint buffer": (
        "return buffer[:batch], buffer[batch:]",
        "return buffer[batch:], buffer[:batch]",
    ),
}
STATIC_LOSSES = {
    "entropy not rescaled between tiles": ("decay * (weighted + gap * total) + e", "decay * weighted + e"),
    "total not rescaled between tiles": ("total = decay * total + e", "total = total + e"),
    "entropy not rescaled between lanes": ("decay * (weighted + gap * total), against", "decay * weighted, against"),
    "target's sum not rescaled": ("against + gap * mass, mass", "against, mass"),
    "sums exchanged": ("a0 + b0, a1 + b1", "a0 + b0, a0 + b1"),
    "weight of the other term": ("tl.load(ce_weights", "tl.load(negent_weights"),
    "weights exchanged by the host": (
        "(ce_weight.contiguous(), negent_weight.contiguous())",
        "(negent_weight.contiguous(), ce_weight.contiguous())",
    ),
    "sign of the weighted entropy": ("from_ce + tl.where(negent_weight", "from_ce - tl.where(negent_weight"),
    "zero weight does not switch off": ("tl.where(ce_weight == 0.0, 0.0, ce_weight * ce)", "ce_weight * ce"),
    "an infinite gradient switches on": (
        "tl.where(of_ce == 0.0, 0.0, of_ce * incoming)",
        "of_ce * incoming",
    ),
    "incoming gradient of the rows taken for contiguous": ("g_rows.stride(0)", "1"),
    "sign of log total": ("row_weighted / row_total - log_total", "row_weighted / row_total + log_total"),
    "target taken for a distribution": ("ce = row_mass * log_total", "ce = log_total"),
    "smoothing over too many classes": ("smoothing / C", "smoothing / (C + 1)"),
    "first static row takes another target": ("row >= n_motion", "row > n_motion"),
    "ignored label counts": ("tl.where(ignored, 0.0, ce))", "ce)"),
    "wrong label passes": ('ce = tl.where(wrong, float("nan"), ', "ce = tl.where(wrong, 0.0, "),
    "impossible class poisons the entropy": ("below = tl.where(dead, 0.0, z - higher)", "below = z - higher"),
    "one column too many": ("valid = columns < C\n        z", "valid = columns < C + 1\n        z"),
    "lse without its maximum": ("tl.store(lses + row, top + log_total)", "tl.store(lses + row, log_total)"),
    "gradient of ce without the mass": ("(p * mass - q)", "(p - q)"),
    "gradient of negent": ("(log_p - negent)", "(log_p + negent)"),
    "zero gradient does not switch off": (
        "tl.where(ce_weight == 0.0, 0.0, tl.where(ignored, 0.0, from_ce))",
        "tl.where(ignored, 0.0, from_ce)",
    ),
    "gradient of an impossible class": ("tl.where(p == 0.0, 0.0, negent_weight * p", "tl.where(p < 0.0, 0.0, p"),
    "incoming gradient taken for contiguous": ("= g_ce.contiguous(), g_negent.contiguous()", "= g_ce, g_negent"),
    "logits taken for contiguous": ("logits if logits.stride(1) == 1 else logits.contiguous()", "logits"),
}
STEP_BOUNDARY = {
    "weight of the other term": ("ce_weight = tl.load(ce_weights", "ce_weight = tl.load(negent_weights"),
    "weights exchanged by the host": (
        "(ce_weight.contiguous(), negent_weight.contiguous())",
        "(negent_weight.contiguous(), ce_weight.contiguous())",
    ),
    "gradient of the first tile only": ("range(0, C, BLOCK_C)", "range(0, BLOCK_C, BLOCK_C)"),
    "smoothing forgotten": (
        "row_launch(logits, target, n_motion, label_smoothing,",
        "row_launch(logits, target, n_motion, 0.0,",
    ),
    "offsets exchanged": ("top, left, flip, t_idx, last_top", "left, top, flip, t_idx, last_top"),
    "static clip from frame 0": (
        "clip_launch(frames, top, left, flip, t_idx,",
        "clip_launch(frames, top, left, flip, None,",
    ),
    "not mirrored": ("clip_launch(frames, top, left, flip,", "clip_launch(frames, top, left, None,"),
}
ATTENTION_TRITON = {
    "mask forgotten": ("tl.where(of_row != of_column, MASK * LOG2E, 0.0)", "tl.where(of_row != of_column, 0.0, 0.0)"),
    "mask on equal regions": ("of_row != of_column", "of_row == of_column"),
    "regions of the first window": ("(window % n_regions)", "(window * 0)"),
    "bias of the first head": ("head.to(tl.int64) * (M * N) + row * N", "row * N"),
    "scores unscaled": ("raw * (scale * LOG2E)", "raw * LOG2E"),
    "keys that do not exist": ('tl.where(column < N, score, float("-inf"))', "score"),
    "keys of the last block lost": ("if whole != N:", "if whole > N:"),
    "keys that do not exist, derivatives": ("M, N, ACC, WIDEN, pad,", "M, N, ACC, WIDEN, False,"),
    "sum of values not rescaled": ("total * shrink[:, None]", "total"),
    "sum of exponentials not rescaled": ("mass * shrink + ", "mass + "),
    "lse without its maximum": ("top + tl.log2(mass)", "tl.log2(mass)"),
    "later blocks lost": ("% blocks * BLOCK + ", "% blocks * 0 + "),
    "t without its centre": ("sum_t + centre_t", "sum_t"),
    "x without its centre": ("sum_y + centre_g", "sum_y"),
    "cotangent of dB lost for queries": (
        "+= load_pairs(e, head, rows[:, None]",
        "+= 0 * load_pairs(e, head, rows[:, None]",
    ),
    "cotangent of dB lost for keys": (
        "+= load_pairs(e, head, rows[None, :]",
        "+= 0 * load_pairs(e, head, rows[None, :]",
    ),
    "cotangent of dB lost for the bias": ("tangent += added", "tangent += 0 * added"),
    "P c lost": ("total_do = product(p, key_c, ", "total_do = product(0 * p, key_c, "),
    "dS b lost": ("total_q = product(ds, key_b, ", "total_q = product(0 * ds, key_b, "),
    "dS b lost, large heads": ("total = product(ds, key_b, ", "total = product(0 * ds, key_b, "),
    "dS^T a lost": ("total_k = product(ds, query_a, ", "total_k = product(0 * ds, query_a, "),
    "sign of t O": ("total_do -= sum_t", "total_do += sum_t"),
    "x P K lost": ("sum_y[:, None] * from_p + ", ""),
    "W for U": ("p *= tangent  # U", "p = ds  # U"),
    "dQ unscaled": ("total_q * scale", "total_q"),
    "dK unscaled": ("total_k * scale", "total_k"),
    "g_Q unscaled, large heads": ("total * scale", "total"),
    "windows of a split after the first": ("windows, tl.num_programs(2))", "tl.num_programs(2), tl.num_programs(2))"),
    "splits not added": ("g_bias.sum(0)", "g_bias[0]"),
}
ATTENTION_INPUTS = {
    "delta of a rounded O": ("of_row + excess", "of_row"),
    "dQ of a rounded O": ("from_ds - excess[:, None] * mean_k[None, :]", "from_ds"),
    "T not centred": ("dot_rows(own, mean_b, ACC)) * scale", "dot_rows(own, mean_b, ACC)) * 0"),
    "strides of K for V": ("v = of_head(v, window, head, v_b, v_h)", "v = of_head(v, window, head, k_b, k_h)"),
    "last stride taken for one": ("tensor.stride(3) == 1 and near", "near"),
}
ATTENTION_TORCH = {
    "regions of the first windows": ("% len(regions)", "% 1"),
    "mask after the first block of queries": ("own[:, rows, None]", "own[:, : rows.stop - rows.start, None]"),
    "bias of the first block of queries": ("bias[self.heads, rows]", "bias[self.heads, : rows.stop - rows.start]"),
    "bias counted twice": ("score.baddbmm_(query, key.mT)", "score.baddbmm_(query, key.mT, beta=2)"),
    "dK of the last block": ("total_k.baddbmm_(ds.mT, query)\n", "total_k = ds.mT @ query\n"),
    "dV of the last block": ("total_v.baddbmm_(p.mT, slope)", "total_v = p.mT @ slope"),
    "dB of the last window": ("parts.new_ones(len(parts)", "parts.new_zeros(len(parts)"),
    "cotangent of dB lost": ("add_(chunk.of_bias(e, rows))", "add_(0 * chunk.of_bias(e, rows))"),
    "keys exchanged in T": ("torch.cat([key, key_b], -1)", "torch.cat([key_b, key], -1)"),
    "t not subtracted": ("tangent -= weighted", "tangent -= 0 * weighted"),
    "dS a lost": (".baddbmm_(ds.mT, query_a)", ""),
    "dQ unscaled": ("(ds @ key).mul_(scale)", "(ds @ key)"),
}

GELU_DERIVATIVES = {
    "the first block only": ("at = tl.program_id(0).to(tl.int64) * BLOCK + ", "at = "),
    "density of another height": ("* 0.3989422804014327", "* 0.39894"),
    "slope without its second term": ("+ x * density", "+ density"),
    "sign of the error function": ("0.5 + 0.5 * tl.erf", "0.5 - 0.5 * tl.erf"),
    "bend of the normal density": ("(2.0 - x * x)", "(1.0 - x * x)"),
    "bend without p": ("(a * b * density", "(b * density"),
    "p for z": ("(b * slope)", "(a * slope)"),
    "z for p": ("tl.store(by_p + at, (a * slope)", "tl.store(by_p + at, (b * slope)"),
    "third result forgotten": ("present = by_p is not None", "present = False"),
    "rest left out": ("valid = at < elements", "valid = at < elements // BLOCK * BLOCK"),
}


def run_clip_checks(module: ModuleType) -> None:
    op = module.clip_prep_triton
    check_clips(op, "cpu", (2, 5, 11, 13), (6, 8), torch.float16, False, "frame")
    check_clips(op, "cpu", (2, 3, 11, 13), (6, 8), torch.float16, True, "full", joint=True)
    check_clamping(op, "cpu")


def run_loss_checks(module: ModuleType) -> None:
    both = (module.static_losses_triton, module.static_losses_backward_triton, "cpu")
    check_losses(*both, rows=4, n_motion=2, smoothing=0.1)
    check_losses(*both, rows=2, n_motion=1, classes=1500, soft=True)
    check_strided_losses(*both)
    check_loss_policy(*both)
    weighted = (module.weighted_losses_triton, module.weighted_losses_backward_triton)
    check_weighted_losses(*weighted, *both[:2], row_loss, "cpu", smoothing=0.1)


def run_boundary_checks(module: ModuleType) -> None:
    clips = importlib.import_module("unstill.kernels.clip_prep.triton_form").clip_prep_triton
    losses = importlib.import_module("unstill.kernels.static_losses.triton_form")
    apart = (clips, losses.static_losses_triton, losses.static_losses_backward_triton, row_loss)
    check_boundary(module.step_boundary_triton, *apart, "cpu", smoothing=0.1)
    check_boundary(module.step_boundary_triton, *apart, "cpu", classes=1500)


def attention_forms(module: ModuleType) -> list:
    form = "triton" if hasattr(module, "attention_triton") else "torch"
    return [getattr(module, f"attention{name}_{form}") for name in ("", "_backward", "_double_backward")]


def run_attention_checks(module: ModuleType) -> None:
    forms = attention_forms(module)
    # small tiles, so that few tokens are several
    module.attention_tile_for = lambda kernel, block_d, biased: AttentionTile(16, 16, 4, 1)
    module.ATTENTION_PROGRAMS = 4  # two splits for three windows of two tiles
    module.CHUNK_BYTES = {"cpu": 3 * 5 * 8}  # three rows of the second case
    check_attention(forms, "cpu", 3, 1, 4, 20, 5, bias=True)
    check_attention(forms, "cpu", 2, 2, 5, 5, 16, bias=True, windows=2, cotangent=False)
    check_attention(forms, "cpu", 1, 1, 3, 5, 72)
    check_attention(forms, "cpu", 1, 1, 20, 3, 16)


def run_attention_input_checks(module: ModuleType) -> None:
    forms = attention_forms(module)
    check_attention(forms, "cpu", 1, 1, 33, 70, 16, dtype=torch.bfloat16, bias=True, mean=6.0, allowed=0.036)
    check_strided_attention(forms, "cpu")


def run_gelu_checks(module: ModuleType) -> None:
    check_gelu_products(module.second_order_triton, "cpu")


FILES = {  # in the order of their imports
    "attention.triton_form": ("triton_blocks", "triton_kernels", "triton_form"),
    "clip_prep.triton_form": ("torch_form", "triton_form"),
}
KERNELS = {
    "clip_prep.triton_form": (CLIP_PREP, run_clip_checks),
    "gelu_derivatives": (GELU_DERIVATIVES, run_gelu_checks),
    "static_losses.triton_form": (STATIC_LOSSES, run_loss_checks),
    "step_boundary": (STEP_BOUNDARY, run_boundary_checks),
    "attention.triton_form": (ATTENTION_TRITON, run_attention_checks),
    "attention.triton_form, strides and precision": (ATTENTION_INPUTS, run_attention_input_checks),
    "attention.torch_form": (ATTENTION_TORCH, run_attention_checks),
}


@pytest.fixture(autouse=True)
def nan_in_new_memory():
    """What a mutant does not write must not hold the right answer of the kernel before it."""
    torch.use_deterministic_algorithms(True)  # fills new tensors with NaN
    yield
    torch.use_deterministic_algorithms(False)


def load(kernel: str, folder: Path, old: str = "", new: str = "") -> ModuleType:
    """The kernel's module, with ``old`` replaced by ``new``, and with operators of its own.

    A module that is made of several files is loaded as copies of them all, which import each other.
    """
    full_name = kernel.split(",")[0]
    *package, last = full_name.split(".")
    files = FILES.get(full_name, (last,))
    sources = {file: FOLDER.joinpath(*package, f"{file}.py").read_text() for file in files}
    assert any(old in source for source in sources.values()), f"{kernel} no longer holds {old!r}"
    mutant = f"mutant_{next(NUMBER)}"
    for file, source in sources.items():
        path = folder / f"{mutant}_{file}.py"
        for other in files:
            source = source.replace(f"from .{other} import", f"from .{mutant}_{other} import")
        path.write_text(source.replace(old, new).replace('"unstill::', f'"{mutant}::'))
        name = ".".join(("unstill.kernels", *package, path.stem))
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernel_itself_passes(kernel, tmp_path, device):
    if device != "cpu":
        pytest.skip("mutants are interpreted")
    KERNELS[kernel][1](load(kernel, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kernel, mutant", [(k, m) for k, (mutants, _) in KERNELS.items() for m in mutants])
def test_mutant_is_caught(kernel, mutant, tmp_path, device):
    if device != "cpu":
        pytest.skip("mutants are interpreted")
    mutants, run_checks = KERNELS[kernel]
    module = load(kernel, tmp_path, *mutants[mutant])
    with pytest.raises(AssertionError):
        run_checks(module)
