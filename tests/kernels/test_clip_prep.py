import importlib

import pytest
import torch
from kernel_checks import MEAN, STD, check_clamping, check_clips, clip_inputs
from kernel_grid import every_pair, first

from unstill.kernels import clip_prep
from unstill.kernels.clip_prep.torch_form import clip_prep_torch
from unstill.kernels.clip_prep.triton_form import clip_prep_triton

OP = torch.ops.unstill.clip_prep.default
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# B, T, H, W and crop: odd everywhere; one frame of one clip, whole; stores of several elements
SHAPES = [((2, 5, 37, 41), (17, 19)), ((1, 1, 9, 8), (9, 8)), ((2, 4, 30, 34), (24, 32))]
MODES = [("none", False), ("frame", False), ("full", False), ("full", True)]


@pytest.mark.parametrize("mode, dtype", every_pair([(*m, c) for m in MODES for c in (False, True)], DTYPES), ids=str)
def test_equals_the_float64_reference(form, mode, dtype):
    static, joint, channels_last = mode
    # interpreted programs cost some 10 ms each, so not every shape meets every mode in every dtype
    shape = SHAPES[(DTYPES.index(dtype) + MODES.index((static, joint))) % 3]
    check_clips(form.clip_prep, form.device, *shape, dtype, channels_last, static, joint)


@pytest.mark.parametrize("channels_last", first(1, [True, False]))
def test_large_tiles_and_absent_indices(form, channels_last):
    check_clips(form.clip_prep, form.device, (1, 3, 70, 71), (66, 64), torch.bfloat16, channels_last, "full")
    check_clips(form.clip_prep, form.device, *SHAPES[2], torch.float32, channels_last, "frame", index=False)


def test_triton_equals_torch_to_the_bit_in_float32(device):
    frames, *index = clip_inputs((3, 5, 31, 33), (18, 20), device)
    options = ([18, 20], MEAN, STD, torch.float32, False, "full", False)
    triton_clips = clip_prep_triton(frames, *index, *options)
    torch_clips = clip_prep_torch(*(x.cpu() for x in (frames, *index)), *options)
    for got, want in zip(triton_clips, torch_clips, strict=True):
        assert torch.equal(got.cpu(), want)


def test_float64_on_a_cpu():
    check_clips(OP, "cpu", *SHAPES[0], torch.float64, False, "full")


def test_values_outside_the_frame_are_clamped(form):
    check_clamping(form.clip_prep, form.device)


def test_validation_refuses_values_outside_the_frame(device):
    frames, *_ = clip_inputs((2, 3, 10, 12), (6, 8), device)
    inside = dict(top=[4, 0], left=[0, 4], t_idx=[2, 0])
    options = dict(mean=MEAN, std=STD, size=(6, 8), validate=True)
    clip_prep(frames, **options, **{name: torch.tensor(v, device=device) for name, v in inside.items()})
    for name, wrong in (("top", [5, 0]), ("left", [0, -1]), ("t_idx", [3, 0])):
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, \d\], got"):
            clip_prep(frames, **options, **{name: torch.tensor(wrong, device=device)})


@pytest.mark.parametrize("integer", first(1, [torch.int32, torch.int64, torch.uint8]))
def test_integer_types_of_the_indices(form, integer):
    frames, top, left, flip, t_idx = clip_inputs((2, 4, 18, 22), (7, 9), form.device)
    options = ([7, 9], MEAN, STD, torch.float32, False, "full", False)
    want = form.clip_prep(frames, top, left, flip, t_idx, *options)
    got = form.clip_prep(frames, *(x.to(integer) for x in (top, left, flip, t_idx)), *options)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_frames_that_are_a_view(form):
    whole, *index = clip_inputs((3, 8, 24, 30), (7, 9), form.device)
    view = whole[1:, 1::2, 2:20, 3:25]
    index = [i[1:].clamp(max=3) for i in index]
    options = ([7, 9], MEAN, STD, torch.float32, False, "full", False)
    for got, want in zip(
        form.clip_prep(view, *index, *options), form.clip_prep(view.contiguous(), *index, *options), strict=True
    ):
        assert torch.equal(got, want)


def test_offsets_beyond_two_gib(device):
    """Three clips, the last more than 2**31 bytes (output: elements) from the first, at a stride that fits 32 bits."""
    module = importlib.import_module("unstill.kernels.clip_prep.triton_form")
    shape, size, apart = (3, 2, 9, 10), (6, 7), 2**30 + 4096
    frames, *index = clip_inputs(shape, size, device)
    # the memory between the clips is never touched, so on a CPU it is never committed
    far = torch.empty(2 * apart + frames[0].numel(), dtype=torch.uint8, device=device)
    far = far.as_strided(frames.shape, (apart, *frames.stride()[1:])).copy_(frames)
    out = torch.empty(2 * apart + 3 * 2 * 6 * 7, dtype=torch.bfloat16, device=device)
    motion = out.as_strided((3, 3, 2, 6, 7), (apart, *torch.empty(1, 3, 2, 6, 7).stride()[1:]))
    programs, arguments, meta = module.clip_launch(far, *index, size, MEAN, STD, motion, None)
    with module.on_device_of(frames):
        module.clip_prep_kernel[(programs,)](*arguments, **meta, **module.LAUNCH)
    near, _ = module.clip_prep_triton(frames, *index, size, MEAN, STD, torch.bfloat16, False, "none", False)
    assert torch.equal(motion, near)


def test_public_function(device):
    frames, top, left, flip, t_idx = clip_inputs((2, 3, 16, 18), (8, 8), device)
    options = dict(mean=MEAN, std=STD, size=(8, 8), top=top, left=left, flip=flip, t_idx=t_idx)
    motion, still = clip_prep(frames, **options)
    assert still is None and motion.dtype == torch.float32
    both, none = clip_prep(frames, **options, static="full", joint=True)
    assert none is None and torch.equal(both[:2], motion)
    assert torch.equal(both[2:], clip_prep(frames, **options, static="full")[1])
    whole, still = clip_prep(frames, mean=MEAN, std=STD, static="frame", layout="channels_last_3d")
    assert whole.shape == (2, 3, 3, 16, 18) and torch.equal(still, whole[:, :, :1])


FRAMES = torch.zeros(2, 3, 8, 10, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(frames=FRAMES.float()), "must be uint8"),
        (dict(frames=FRAMES[..., :2]), r"must be \(B, T, H, W, 3\)"),
        (dict(frames=FRAMES[:0]), "at least one frame"),
        (dict(frames=FRAMES.permute(0, 1, 3, 2, 4)), "packed"),
        (dict(frames=FRAMES.transpose(3, 4).contiguous().transpose(3, 4)), "packed"),
        (dict(mean=[0.5]), "three numbers"),
        (dict(std=[1, 0, 1]), "std > 0"),
        (dict(layout="nhwc"), "layout"),
        (dict(static="both"), "static"),
        (dict(static="frame", joint=True), "joint"),
        (dict(dtype=torch.int8), "dtype"),
        (dict(size=(9, 8)), "does not fit"),
        (dict(size=(0, 8)), "does not fit"),
        (dict(top=torch.zeros(2)), "top must hold integers"),
        (dict(left=torch.zeros(2, dtype=torch.bool)), "left must hold integers"),
        (dict(flip=torch.zeros(3, dtype=torch.bool)), r"flip must have shape \(2,\)"),
        (dict(t_idx=torch.zeros(2, dtype=torch.int64, device="meta")), "t_idx is on meta"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, message):
    arguments = dict(frames=FRAMES, mean=MEAN, std=STD) | change
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        clip_prep(arguments.pop("frames"), **arguments)
    assert "\n" not in str(caught.value)


def test_opcheck(device):
    frames, *index = clip_inputs((2, 3, 10, 11), (6, 7), device)
    for dtype, channels_last, static, joint in (
        (torch.float32, False, "frame", False),
        (torch.bfloat16, True, "full", True),
    ):
        torch.library.opcheck(OP, (frames, *index, [6, 7], MEAN, STD, dtype, channels_last, static, joint))
    torch.library.opcheck(OP, (frames, *[None] * 4, [10, 11], MEAN, STD, torch.float16, True, "none", False))


def test_compiles_without_a_graph_break(device):
    frames, top, left, flip, t_idx = clip_inputs((2, 3, 10, 11), (6, 7), device)

    def both(frames, top):
        options = dict(mean=MEAN, std=STD, size=(6, 7), top=top, left=left, flip=flip, t_idx=t_idx)
        motion, still = clip_prep(frames, **options, static="full", layout="channels_last_3d")
        return motion * 2, still

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(frames, top), both(frames, top), strict=True):
        assert torch.equal(got, want) and got.stride() == want.stride()


# ------------------------------------------------------------------------------------------------- on a GPU only


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_rounds_to_nearest_even(channels_last):
    frames, *index = clip_inputs((4, 8, 120, 160), (112, 112), "cuda")
    wide, _ = OP(frames, *index, [112, 112], MEAN, STD, torch.float32, channels_last, "none", False)
    for dtype in (torch.bfloat16, torch.float16):
        narrow, _ = OP(frames, *index, [112, 112], MEAN, STD, dtype, channels_last, "none", False)
        assert torch.equal(narrow, wide.to(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("static, joint", MODES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_training_size(channels_last, static, joint):
    check_clips(OP, "cuda", (4, 16, 256, 340), (224, 224), torch.bfloat16, channels_last, static, joint)


@pytest.mark.gpu
def test_a_hundred_launches_are_equal():
    frames, *index = clip_inputs((8, 16, 128, 170), (112, 112), "cuda")
    options = ([112, 112], MEAN, STD, torch.bfloat16, False, "full", False)
    first = OP(frames, *index, *options)
    for _ in range(100):
        again = OP(frames, *index, *options)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


@pytest.mark.gpu
def test_does_not_wait_for_the_device_and_captures_in_a_cuda_graph():
    frames, top, left, flip, t_idx = clip_inputs((4, 8, 64, 64), (56, 56), "cuda")
    options = dict(mean=MEAN, std=STD, size=(56, 56), top=top, left=left, flip=flip, t_idx=t_idx, static="full")
    clip_prep(frames, **options)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = clip_prep(frames, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    frames.copy_(255 - frames)
    graph.replay()
    for got, want in zip(captured, clip_prep(frames, **options), strict=True):
        assert torch.equal(got, want)
