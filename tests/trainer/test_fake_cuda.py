"""Every recipe's step, the loader's hand-over and a checkpoint on tensors that say they are on a GPU and have no data.

An operation that meets a tensor left on the CPU fails here as it would there, and what a step leaves behind is on the
device. Numbers of no dimension may stay on the CPU: CUDA takes them as arguments.

Autograd's engine refuses a GPU that is not there. So a backward gives every parameter a gradient of its shape, and an
inner gradient is one of the input's shape that has the output for a history: what a backward computes is not seen. Nor
is fused SGD, which has no form for tensors without data; AdamW has.
"""

import copy
import json
import sys
from dataclasses import replace

import pytest
import torch
from recipe_files import make_recipe_files, with_files
from synthetic_run import CLASSES, run_config
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._pytree import tree_leaves
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.pipeline.loading.loader import _tensors
from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.assembly import assemble
from unstill.trainer.augmentations import BackgroundErasing, Mixup, Recast
from unstill.trainer.build import build_networks
from unstill.trainer.distributed import Ranks
from unstill.trainer.inputs.prepare import Prepare
from unstill.trainer.memory_plan import fake_clips
from unstill.trainer.methods import Baseline
from unstill.trainer.models.config import ClipViewConfig, ModelConfig
from unstill.trainer.models.network import Network
from unstill.trainer.recipes import RECIPES
from unstill.trainer.step_config import StepConfig

GPU = torch.device("cuda", 0)
BATCH = 4


@pytest.fixture
def fake_gpu(monkeypatch):
    """Tensors that are made in this mode have no data and may be on cuda:0; autocast believes that there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)  # host memory, of no device
    monkeypatch.setattr(torch, "Generator", GpuGenerator)
    monkeypatch.setattr(sys.modules[torch.optim.SGD.__module__], "_fused_sgd", fused_sgd)
    monkeypatch.setattr(torch.Tensor, "backward", fill_gradients)
    monkeypatch.setattr(torch.autograd, "grad", inner_gradients)
    with torch.random.fork_rng(devices=[]):
        yield FakeTensorMode(allow_non_fake_inputs=True)


class GpuGenerator(torch.Generator):
    """In place of a generator of the GPU: numbers without data need none of its state."""

    def __new__(cls, device="cpu"):
        assert torch.device(device) == GPU, f"a generator on {device}"
        return super().__new__(cls)


def fill_gradients(loss, gradient=None, retain_graph=None, create_graph=False, inputs=None):
    """In place of ``Tensor.backward``."""
    assert loss.device == GPU and loss.requires_grad
    for parameter in inputs:
        assert parameter.requires_grad
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad + 1


def fused_sgd(parameters, gradients, momenta, *, found_inf, **_):
    """In place of SGD's fused kernel."""
    assert_on_gpu("SGD", [*parameters, *gradients, *[m for m in momenta if m is not None], found_inf])
    momenta[:] = [torch.zeros_like(p) for p in parameters]


def inner_gradients(outputs, inputs, grad_outputs=None, **_):
    """In place of ``torch.autograd.grad``."""
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    inputs = [inputs] if isinstance(inputs, torch.Tensor) else inputs
    return tuple(torch.zeros_like(value) + 0 * sum(output.sum() for output in outputs) for value in inputs)


def to_gpu(module: nn.Module | None) -> nn.Module | None:
    """The module with its parameters and buffers on the device; ``Module.to`` cannot swap tensors without data."""
    for part in [] if module is None else module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = nn.Parameter(torch.empty_like(parameter, device=GPU), requires_grad=parameter.requires_grad)
                part._parameters[name] = moved
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer, device=GPU)
    return module


def clips_on_gpu(config):
    clips = fake_clips(BATCH, config.clip.frames, config.clip.size)
    for name in ("frames", "label", "sample", "position", "start_frame", "static_index", "flip", "draws"):
        setattr(clips, name, getattr(clips, name).to(GPU))
    return clips


def reduced_swin(classes: int) -> Network:
    """Two stages of a Video Swin, with shifted windows."""
    options = {"patch_size": [2, 4, 4], "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 4]}
    swin = SwinTransformer3d(window_size=[2, 3, 3], stochastic_depth_prob=0.1, num_classes=classes, **options)
    return Network(module=swin, head="head")


def reduced_videomae() -> str:
    """Architecture of a VideoMAE of two blocks, for clips of 4 frames of 32."""
    pytest.importorskip("transformers")
    sizes = {"image_size": 32, "num_frames": 4, "hidden_size": 16, "intermediate_size": 24}
    return json.dumps({"model_type": "videomae", "num_attention_heads": 2, "num_hidden_layers": 2, **sizes})


def one_step(config, mode, spoil=lambda step: None):
    """One step of a run on tensors without data; returns (state, what the loader prepared)."""
    data = DatasetInfo(samples=1000, classes=tuple(f"class {n}" for n in range(CLASSES)), digest="")
    tables = config.method.tables(config.data)
    networks = build_networks(config, data, torch.device("cpu"), tables)
    if config.augmentation is not None:
        config.augmentation.read_files(config.clip.size)
    with FakeCopyMode(mode):
        networks = copy.deepcopy(networks)  # together: a method's module may share layers with the network
    with mode:
        networks = [to_gpu(network) for network in networks]
        tables = {name: torch.empty_like(table, device=GPU) for name, table in tables.items()}
        state, step = assemble(config, *networks, tables, Ranks(0, 1, GPU), 100, CLASSES, config.step.static_parts or 1)
        clips = clips_on_gpu(config)
        if not config.step.fused_boundary:
            clips.prepared = Prepare(config)(clips)
        if config.optimiser.dampening:  # of damped SGD the second step: the host decides on the first
            for parameter in state.trained.parameters():
                parameter.grad = torch.zeros_like(parameter)
            state.optimiser.step()
            state.optimiser.zero_grad()
        spoil(step)
        step(next(iter(step.inputs([clips, clips_on_gpu(config)]))))
    return state, clips


def assert_on_gpu(what, value, allow_numbers=False):
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    for tensor in tensors:
        assert tensor.device == GPU or (allow_numbers and tensor.ndim == 0), f"{what}: {tuple(tensor.shape)} on the CPU"
    return tensors


def small(config):
    """The recipe with clips and networks that are quickly traced; its method, augmentation and options are kept."""
    step = replace(config.step, compile="off", deterministic=False)
    clip = replace(config.clip, frames=min(4, config.clip.frames), size=32)
    model = replace(config.model, weights="none")
    if model.name == "swin3d_t":
        model = replace(model, name=f"{__name__}:reduced_swin")
    elif model.name == "hf:MCG-NJU/videomae-base":
        model = replace(model, architecture=reduced_videomae())
    return replace(config, device="cuda", step=step, clip=clip, model=model, batch_size=BATCH)


@pytest.fixture
def folder(tmp_path, named_data):
    """An index, boxes of people and scenes for 24 samples, and a bank of stills."""
    return make_recipe_files(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_step_of_every_recipe_stays_on_the_device(name, folder, fake_gpu):
    config = with_files(small(RECIPES[name]()), folder)
    state, clips = one_step(config, fake_gpu)
    motion, static = clips.prepared
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[config.step.precision]
    shape = (BATCH, 3, config.clip.frames, config.clip.size, config.clip.size)
    assert (motion.shape, motion.dtype, motion.device) == (shape, dtype, GPU)
    if static is not None:
        assert (static.shape, static.dtype, static.device) == ((*shape[:2], 1, *shape[3:]), dtype, GPU)
    # what the loader orders after the training stream: everything on the device that a step reads
    assert len(list(_tensors((clips.label, clips.flip, clips.draws, clips.per_sample, clips.prepared)))) >= 4
    assert_on_gpu("weights", dict(state.trained.state_dict()))
    moments = [assert_on_gpu("optimiser", entry, allow_numbers=True) for entry in state.optimiser.state.values()]
    if config.optimiser.name != "sgd" or config.optimiser.momentum:  # else it keeps nothing
        assert sum(map(len, moments)) >= sum(p.requires_grad for p in state.trained.parameters())
    assert_on_gpu("counters", [state.guard.counts, *tree_leaves(state.meter.state_dict())])


@pytest.mark.parametrize(
    "changes",
    [
        {"step": StepConfig(precision="bf16", ema=0.9, clip_grad=1.0, accumulate=2)},
        {"step": StepConfig(precision="fp32", channels_last=True)},
        {"step": StepConfig(static_parts=2), "model": ModelConfig(name="synthetic_run:random_net")},
        {"step": StepConfig(fused_boundary=True)},
        {
            "augmentation": Recast(background="other"),
            "model": ModelConfig(name="synthetic_run:layer_norm_net", view=ClipViewConfig(sees="fade_in")),
        },
        {"augmentation": BackgroundErasing(consistency_weight=0.5), "method": Baseline()},
    ],
)
def test_a_step_with_these_options_stays_on_the_device(changes, folder, fake_gpu):
    config = run_config(folder, device="cuda", batch_size=BATCH, **changes)
    state, _ = one_step(replace(config, step=replace(config.step, compile="off")), fake_gpu)
    assert_on_gpu("weights", dict(state.trained.state_dict()))
    if state.average is not None:
        assert_on_gpu("average", state.average.state)


def test_a_checkpoint_is_copied_on_the_device_and_then_to_the_host(folder, fake_gpu):
    config = run_config(folder, device="cuda", batch_size=BATCH, step=StepConfig(compile="off", ema=0.9))
    state, _ = one_step(config, fake_gpu)
    with fake_gpu:
        copied = state.snapshot()
        on_device = [copied.weights, copied.average, copied.training_state]
        tensors = assert_on_gpu("snapshot", on_device, allow_numbers=True)
        host = copied.to_cpu()
        on_host = tree_leaves([host.weights, host.average, host.training_state])
    on_host = [leaf for leaf in on_host if isinstance(leaf, torch.Tensor)]
    assert {tensor.device.type for tensor in on_host} == {"cpu"}
    described = [[(tensor.shape, tensor.dtype) for tensor in group] for group in (tensors, on_host)]
    assert described[0] == described[1]


class LeftOnTheCPU(nn.Module):
    """A network that adds a constant which no ``.to`` moves."""

    def __init__(self, classes: int):
        super().__init__()
        self.head = nn.Linear(3, classes)
        self.bias = torch.ones(classes)

    def forward(self, x):
        return self.head(x.mean((2, 3, 4))) + self.bias


def test_a_constant_of_a_network_on_the_cpu_is_found(folder, fake_gpu):
    config = run_config(folder, device="cuda", model=ModelConfig(name=f"{__name__}:LeftOnTheCPU"))
    with pytest.raises(RuntimeError, match=r"cuda:0 and cpu"):
        one_step(config, fake_gpu)


def test_a_batch_that_went_through_the_cpu_is_found(folder, fake_gpu):
    class Careless(Mixup):
        def __call__(self, batch, rng, context):
            batch = super().__call__(batch, rng, context)
            return replace(batch, target=batch.target.cpu())

    with pytest.raises(ValueError, match=r"the target is on cpu, the logits on cuda:0"):
        one_step(run_config(folder, device="cuda", augmentation=Careless()), fake_gpu)


def test_a_table_left_on_the_cpu_is_found(folder, fake_gpu):
    def forget(step):
        step.tables = {name: table.cpu() for name, table in step.tables.items()}

    config = with_files(small(RECIPES["demo_sdn"]()), folder)
    with pytest.raises(RuntimeError, match=r"cpu"):
        one_step(config, fake_gpu, forget)
