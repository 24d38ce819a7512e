"""Costs that can be counted must stay what they are today. No clock: the counts are the same on a busy machine.

Each guard names its number, how far it may move, and the regression that would move it. A change that moves one on
purpose, either way, writes the new number here. Counted elsewhere: operations of the step (test_flops.py), registers
and spilled bytes of the kernels (test_aot.py).
"""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from unstill.bench.harness.loader.peers import WholeFileReader
from unstill.bench.suites.growth import BATCH, FRAGMENT_BYTES, synthetic_index
from unstill.pipeline.loading.bad_clips import BadClips
from unstill.pipeline.loading.clip_stream import ClipStream
from unstill.pipeline.loading.clips import Clips
from unstill.pipeline.loading.gop_reader import GopReader, shards_in
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.pipeline.shards.index import SampleIndex
from unstill.trainer.batch import Batch
from unstill.trainer.build import build
from unstill.trainer.demo import recipes
from unstill.trainer.distributed import Ranks
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline
from unstill.trainer.models.motion_cnn import MotionCNN
from unstill.trainer.passes import backward_in_passes, pass_inputs, step_passes

FRAMES = 16


@dataclass(frozen=True)
class Guard:
    """A number of today.

    Attributes:
        today: what is counted now.
        within: share of it by which it may differ; 0: not at all.
        catches: the regression that would move it.
    """

    today: float
    within: float
    catches: str


GUARDS = {
    # videos of 300 frames in GOPs of 12, fragments of 12,000 bytes, a header of 800; clips of 16 frames, stride 2
    "bytes read per clip": Guard(42_659.375, 0, "a GOP too many is read, or the whole file"),
    "bytes read per clip / whole file": Guard(0.14182, 0.001, "the same, whatever the size of the videos"),
    "reads per clip": Guard(1.94921875, 0, "fragments or tables are read one by one"),
    "frames decoded per frame delivered": Guard(
        2.2783203125, 0, "decoding starts before the key frame that a clip needs"
    ),
    "calls per clip read": Guard(193, 0.1, "work in Python for every clip that is read, checked and cut out"),
    "calls per batch drawn": Guard(172, 0.1, "the sampler treats clips one by one, or in more passes"),
    "bytes allocated per clip drawn": Guard(834, 0.05, "the sampler keeps more of a batch at a time"),
    "bytes of index per sample": Guard(284.03, 0.001, "a column is added to the index, or a wider type chosen"),
    # 4 clips of 8x32x32, eager, with the penalty: one convolution and a head
    "convolutions of a step": Guard(7, 0, "a forward or backward pass more"),
    "operations of a step": Guard(170, 0.03, "small operations creep into the loss"),
    "launches of weighted_losses": Guard(
        4, 0, "the losses of a pass are no longer one launch forward and one backward"
    ),
    "values read by the host in an update": Guard(
        1, 0, "a wait for the device in every step; the one is the CPU's own"
    ),
    "operations of an update beyond its step": Guard(66, 0.03, "small operations creep into guard, meter or optimiser"),
    # MotionCNN, the same clips
    "bytes kept for the backward": Guard(2_991_050, 0.02, "activations are kept that were not"),
    "bytes kept for the backward / cross entropy": Guard(2.308, 0.02, "the same, whatever the network"),
    # one convolution and a head, compiled
    "graphs of a compiled step": Guard(2, 0, "a graph break or a recompilation; there is one for each pass"),
    "bytes kept by the compiled step": Guard(1_479_960, 0.05, "the compiler is kept from computing activations again"),
}


def hold(name: str, found: float) -> None:
    """Fail unless a number is what it was."""
    guard = GUARDS[name]
    assert abs(found - guard.today) <= guard.within * guard.today, (
        f"{name}: {found:,.6g}, was {guard.today:,.6g} (may differ by {guard.within:.0%}); it catches: {guard.catches}"
    )


# ------------------------------------------------------------------------------------------------- reading


class NothingDecoded:
    """In the place of DALI: clips of no pixels."""

    def submit(self, batch):
        self.clips = len(batch)

    def collect(self, stream):
        return torch.empty(self.clips, 0)

    def close(self):
        pass


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A shard of 1,000 videos whose pictures are zeros: mostly a hole in a file, which costs no disk."""
    root, index = tmp_path_factory.mktemp("zeros"), synthetic_index(1000)
    header, fragment = mp4_header(int(index.init_bytes[0])), mp4_fragment(int(index.gop[0]), FRAGMENT_BYTES)
    crcs = zlib.crc32(header), zlib.crc32(fragment)
    index = replace(
        index, init_crc=np.full_like(index.init_crc, crcs[0]), fragment_crc=np.full_like(index.fragment_crc, crcs[1])
    )
    index.save(root / "index.safetensors")
    (root / "shards").mkdir()
    with open(root / index.shard_names[0], "wb") as file:
        file.truncate(int(index.mp4_offset[-1]) + int(index.mp4_bytes[-1]))
        for sample, offset in enumerate(index.mp4_offset.tolist()):
            rows = index.fragment_end[index.fragment_row[sample] : index.fragment_row[sample + 1]].tolist()
            for position, data in [(0, header), *((end - FRAGMENT_BYTES, fragment) for end in rows)]:
                file.seek(offset + position)
                file.write(data.rstrip(b"\0"))
    return root


def mp4_header(size: int) -> bytes:
    """What the reader looks at in the header of an MP4: a clock, a size, a description."""
    mdhd = struct.pack(">I4s4I4x", 28, b"mdhd", 0, 0, 0, 30_000)
    tkhd = struct.pack(">I4s76x2I", 92, b"tkhd", 336 << 16, 256 << 16)
    stsd = struct.pack(">I4s3I4s24x2H50x", 102, b"stsd", 0, 1, 86, b"vp08", 336, 256)
    moov = struct.pack(">I4s", size, b"moov") + mdhd + tkhd + stsd
    return moov + struct.pack(">I4s", size - len(moov), b"free") + bytes(size - len(moov) - 8)


def mp4_fragment(frames: int, size: int) -> bytes:
    """A fragment of equal frames, with FFmpeg's tables: a duration for all, a size for each."""
    tfhd = struct.pack(">I4s2I3I", 28, b"tfhd", 0x020038, 1, 1000, 500, 0)
    each = (size - 96 - 4 * frames) // frames
    trun = struct.pack(f">I4s3I{frames}I", 20 + 4 * frames, b"trun", 0x201, frames, 88 + 4 * frames, *[each] * frames)
    traf = struct.pack(">I4s", 8 + len(tfhd) + len(trun), b"traf") + tfhd + trun
    moof = struct.pack(">I4s", 24 + len(traf), b"moof") + struct.pack(">I4s8x", 16, b"mfhd") + traf
    mdat = struct.pack(">I4s", size - len(moof), b"mdat")
    return moof + mdat + bytes(size - len(moof) - len(mdat))


@dataclass
class Read:
    """What the loader's own chain did for some clips."""

    clips: int
    bytes: int
    frames: int
    reads: int
    calls: int


def read_clips(root: Path, reader_type: type[GopReader], monkeypatch, clips: int = 256) -> Read:
    """Positions -> requests -> bytes, as in training; nothing is decoded."""
    index, clip = SampleIndex.load(root), ClipConfig(frames=FRAMES, stride=2, size=112)
    reads, preadv = Counter(), os.preadv

    def counted(fd, buffers, offset):
        reads["preadv"] += 1
        return preadv(fd, buffers, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", counted)
        patched.setattr(ClipStream, "_new_decoder", lambda self: NothingDecoded())
        reader = reader_type(index, shards_in(root, index))
        stream = ClipStream(
            index,
            reader,
            TrainSampler(index, clip, AugmentConfig(), seed=0),
            clip,
            BadClips(index, 0.0),
            device=torch.device("cpu"),
            batch_size=32,
            decode_threads=1,
            pipelines=1,
            depth=2,
            read_threads=1,
            read_ahead=2,
            known_good=None,
        )
        done = list(stream.batches(np.arange(n, n + 32) for n in range(0, clips, 32)))
        stream.close()
        wanted = np.arange(40, 40 + 2 * FRAMES, 2)  # in four GOPs
        calls = calls_of(lambda: [reader.clip(sample, wanted) for sample in range(100)])
        reader.close()
    assert sum(len(batch.requests) for batch in done) == clips
    decoded = sum(batch.frames_decoded for batch in done)
    return Read(clips, sum(batch.bytes_read for batch in done), decoded, reads["preadv"] - 200, calls // 100)


def calls_of(function) -> int:
    """Calls of Python and C functions in this thread."""
    calls = Counter()

    def profile(_, event, __):
        calls[event in ("call", "c_call")] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls[True]


@pytest.mark.slow
def test_reading_touches_the_needed_gops_only(dataset, monkeypatch):
    ours, whole = (read_clips(dataset, reader, monkeypatch) for reader in (GopReader, WholeFileReader))
    hold("bytes read per clip", ours.bytes / ours.clips)
    hold("bytes read per clip / whole file", ours.bytes / whole.bytes)
    hold("reads per clip", ours.reads / ours.clips)
    hold("frames decoded per frame delivered", ours.frames / (ours.clips * FRAMES))
    hold("calls per clip read", ours.calls)
    with pytest.raises(AssertionError, match="whole file"):  # the guard is able to fail
        hold("bytes read per clip", whole.bytes / whole.clips)


def costs_of_drawing() -> list[tuple[int, int, int, float]]:
    """Videos, clips drawn, calls, and the bytes for each clip that are allocated at a time."""
    costs = []
    for samples in (1_000, 200_000):
        sampler = TrainSampler(synthetic_index(samples), ClipConfig(frames=FRAMES, stride=2), AugmentConfig(), 0)
        sampler.draw(np.arange(BATCH))
        for clips in (BATCH, 4 * BATCH):
            calls = calls_of(lambda s=sampler, n=clips: s.draw(np.arange(n)))
            tracemalloc.start()
            sampler.draw(np.arange(clips))
            costs.append((samples, clips, calls, tracemalloc.get_traced_memory()[1] / clips))
            tracemalloc.stop()
    return costs


def test_drawing_clips_costs_the_same_for_any_dataset():
    # in a process of its own: after 1,500 other tests one draw took 8.7 kB more, the same in every run
    code = f"import json, runpy; print(json.dumps(runpy.run_path({__file__!r})['costs_of_drawing']()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    costs = {(samples, clips): (calls, allocated) for samples, clips, calls, allocated in json.loads(said)}
    calls, allocated = costs[1_000, BATCH]
    hold("calls per batch drawn", calls)
    hold("bytes allocated per clip drawn", allocated)
    assert costs[1_000, 4 * BATCH][0] == calls  # whatever the batch
    # a place that is out of range is hashed again: a few rounds more or less, by chance
    assert costs[200_000, BATCH][0] < 1.25 * calls
    assert costs[200_000, BATCH][1] < 1.05 * allocated


def test_a_sample_takes_as_many_bytes_of_index_as_ever(tmp_path):
    sizes = []
    for samples in (1_000, 2_000):
        synthetic_index(samples).save(tmp_path / "index")
        sizes.append((tmp_path / "index").stat().st_size)
    hold("bytes of index per sample", (sizes[1] - sizes[0]) / 1_000)


# ------------------------------------------------------------------------------------------------- the step


class Operations(TorchDispatchMode):
    """Counts every operation that reaches a device, by name."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func._overloadpacket).removeprefix("aten.")] += 1
        return func(*args, **kwargs or {})


class Small(nn.Module):
    """A convolution and a head: without norms, whose double backward has other operations in every torch."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv3d(3, 4, 3), nn.Linear(4, 8)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).mean((2, 3, 4)))


def step_batch(method) -> Batch:
    """4 clips of 8x32x32."""
    motion = torch.randn(4, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    static = motion[:, :, 3:4] if method.static != "none" else None
    return Batch(motion, static, torch.arange(4))


def gradient(module: LossModule, batch: Batch) -> None:
    """Forward and backward of a step, as in training."""
    method = module.method
    passes = step_passes(method, len(batch), method.penalises(0))
    backward_in_passes(module, batch, passes, parameters=list(module.parameters()))


def operations_of(function) -> Counter:
    """How often each operation ran."""
    with Operations() as operations:
        function()
    return operations.calls


def test_a_step_has_the_passes_and_launches_that_it_had():
    calls = operations_of(lambda: gradient(LossModule(Small(), Albar()), step_batch(Albar())))
    hold("convolutions of a step", calls["convolution"] + calls["convolution_backward"])
    hold("launches of weighted_losses", calls["unstill.weighted_losses"] + calls["unstill.weighted_losses_backward"])
    hold("operations of a step", calls.total())
    assert calls["_local_scalar_dense"] == 0  # the loss reads no value: the host never waits in it


def test_an_update_adds_little_to_its_step_and_does_not_wait_for_the_device():
    config = replace(recipes.demo_albar(), method=Albar())
    ranks = Ranks(0, 1, torch.device("cpu"))
    state, update = build(config, DatasetInfo(64, tuple("abcdefgh"), ""), ranks, steps=10)
    frames, n = torch.randint(0, 256, (4, 8, 32, 32, 3), dtype=torch.uint8), torch.arange(4)
    clips = Clips(frames, n, n, n, n, n, n > 1, torch.rand(4, 8))
    update(clips)  # the first one makes the optimiser's state
    calls = operations_of(lambda: update(clips))
    alone = operations_of(lambda: gradient(LossModule(state.model, Albar()), step_batch(Albar())))
    hold("operations of an update beyond its step", calls.total() - alone.total())
    hold("values read by the host in an update", calls["_local_scalar_dense"])
    assert calls["unstill.clip_prep"] == 1


def kept_bytes(method) -> int:
    """Memory that a forward leaves for its backward, in the pass that leaves most; inputs and weights do not count."""
    net, batch, kept = MotionCNN(8), step_batch(method), []
    for step_pass in step_passes(method, len(batch), method.penalises(0)):
        saved, inputs = {}, pass_inputs(batch, step_pass)
        own = {t.untyped_storage().data_ptr() for t in (*inputs, *net.parameters()) if isinstance(t, torch.Tensor)}

        def pack(tensor, saved=saved):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss, _ = LossModule(net, method)(*inputs)
        kept.append(sum(storage.nbytes() for place, storage in saved.items() if place not in own))
        loss.backward()
    return max(kept)


def test_no_more_activations_are_kept():
    albar, cross_entropy = kept_bytes(Albar()), kept_bytes(Baseline())
    hold("bytes kept for the backward", albar)
    hold("bytes kept for the backward / cross entropy", albar / cross_entropy)


@pytest.mark.slow
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_the_compiled_step_is_a_graph_for_each_pass_that_keeps_what_it_kept():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    kept = []

    def forward(graph, inputs):
        return make_boxed_func(graph)

    def backward(graph, inputs):
        values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
        kept.append(sum(value.nbytes for value in values if isinstance(value, torch.Tensor)))
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=forward, bw_compiler=backward, partition_fn=min_cut_rematerialization_partition)
    module, batch = LossModule(Small(), Albar()), step_batch(Albar())
    module.compile(fullgraph=True, dynamic=False, backend=backend)
    for _ in range(2):
        gradient(module, batch)
    hold("graphs of a compiled step", torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(kept) == 2
    hold("bytes kept by the compiled step", max(kept))
