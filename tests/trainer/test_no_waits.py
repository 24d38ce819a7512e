"""A step that does not log reads nothing from the device: checked on a CPU, by watching every way to read a tensor."""

import collections
import dataclasses
import re
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from synthetic_run import SIZE, clips_at, run_config
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.augmentations import ActorCutMix, BackgroundErasing, Fame, Mixup, Recast, StillMix, VideoMix
from unstill.trainer.build import build
from unstill.trainer.distributed import Ranks
from unstill.trainer.inputs.config import InputConfig
from unstill.trainer.inputs.prepare import Prepare
from unstill.trainer.methods import Albar, Baseline, Sdn
from unstill.trainer.models.config import ClipViewConfig, ModelConfig
from unstill.trainer.step_config import StepConfig

pytestmark = pytest.mark.usefixtures("one_thread")

OURS = re.compile(r"(trainer|kernels)/(\w+/)*\w+\.py$")
# forms of these that only a CPU takes: its own decision to skip a step, block copies, the plain form of a kernel
CPU_ONLY = {("nonfinite.py", "update"), ("circular_shift.py", "circular_shift"), ("torch_form.py", "clip_prep_torch")}
READING = {"cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__", "nonzero"}
READING_OPS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim"}
READING_OPS |= {
    "_linalg_eigh",
    "_linalg_svd",
    "linalg_eig",
    "_linalg_eigvals",
}  # on CUDA they check that they converged


class Reads:
    """Where the host read a tensor: (file, function, how) -> times."""

    def __init__(self):
        self.found = collections.Counter()

    def note(self, how: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if OURS.search(frame.filename)]
        frames = [frame for frame in frames if "/tests/" not in frame.filename]
        if not any((Path(frame.filename).name, frame.name) in CPU_ONLY for frame in frames):
            self.found[Path(frames[-1].filename).name, frames[-1].name, how] += 1


class Functions(TorchFunctionMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in READING:
            self.reads.note(func.__name__)
        return func(*args, **kwargs or {})


class Operations(TorchDispatchMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in READING_OPS or by_mask:
            self.reads.note(name)
        return func(*args, **kwargs or {})


def reads_of(config, steps=2) -> dict:
    """What ``steps`` steps after the first read, each on clips that are prepared as a loader does."""
    data = DatasetInfo.read(config.data)
    _, step = build(config, data, Ranks(0, 1, torch.device("cpu")), steps=10)
    batches = [clips_at(range(4 * n, 4 * n + 4)) for n in range(steps + 2)]
    if not config.step.fused_boundary:
        prepare = Prepare(config)
        for clips in batches:
            clips.prepared = prepare(clips)
    inputs, reads = iter(step.inputs(batches)), Reads()
    step(next(inputs))
    with Functions(reads), Operations(reads):
        for _ in range(steps):
            step(next(inputs))
    return dict(reads.found)


@pytest.fixture
def folder(tmp_path, named_data):
    lines = [f"v{n:02},{t},.2,.2,.7,.9" for n in range(24) for t in range(9)]
    (tmp_path / "boxes.csv").write_text("\n".join(["video,frame,left,top,right,bottom", *lines]))
    (tmp_path / "scenes.csv").write_text("\n".join(["key,scene", *(f"v{n:02},{n % 3}" for n in range(24))]))
    save_file({"stills": torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8)}, tmp_path / "bank.safetensors")
    return tmp_path


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "augmentation",
    [None, Mixup(), VideoMix(), BackgroundErasing(consistency_weight=0.5), Fame(), StillMix(), "bank", "people"],
)
def test_a_step_that_does_not_log_never_waits(folder, augmentation, fused):
    step = StepConfig(precision="bf16", compile="off", ema=0.9, clip_grad=1.0, accumulate=2, fused_boundary=fused)
    config = run_config(folder, step=step, model=ModelConfig(name="synthetic_run:dropout_net"))
    if augmentation == "bank":
        augmentation = StillMix(bank=folder / "bank.safetensors")
    elif augmentation == "people":
        augmentation = ActorCutMix()
        config = dataclasses.replace(config, inputs=InputConfig(people=folder / "boxes.csv"))
    assert reads_of(dataclasses.replace(config, augmentation=augmentation)) == {}


def test_other_methods_do_not_wait_either(folder):
    small = run_config(folder, model=ModelConfig(name="motion_cnn"), inputs=InputConfig(people=folder / "boxes.csv"))
    sdn = Sdn(scenes=folder / "scenes.csv", w_mask=0.5, hidden=8, layers=1)
    for method in (Baseline(), sdn, Albar(base=sdn), Albar(forward="joint")):
        assert reads_of(dataclasses.replace(small, method=method)) == {}


@pytest.mark.parametrize(("sees", "steady"), [("moving_part", "homography"), ("fade_in", "off")])
def test_recast_and_views_of_clips_do_not_wait(folder, sees, steady):
    model = ModelConfig(name="synthetic_run:dropout_net", view=ClipViewConfig(sees=sees, steady=steady))
    for options in ({"background": "other"}, {"what": "clip", "prob": 0.5}):
        assert reads_of(run_config(folder, model=model, augmentation=Recast(**options))) == {}


def test_the_audit_can_fail(folder):
    class Reading(Mixup):
        def __call__(self, batch, rng, context):
            batch.target[batch.target > 1].tolist()
            return super().__call__(batch, rng, context)

    found = reads_of(run_config(folder, augmentation=Reading()))
    assert {how for _, _, how in found} == {"tolist", "index"}
