"""Networks with closed layers: equal gradients, less memory, and no convolution of an extraordinary shape."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from gradient_step import Meter, gradient_step
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.video import mvit
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.models.vision_transformer import EncoderBlock

from unstill.pipeline.errors import InputError
from unstill.trainer.build import build_networks
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline
from unstill.trainer.models.closed_attention import ClosedCalls, ClosedWindowAttention
from unstill.trainer.models.closed_conv import ClosedConv3d, PatchConv3d
from unstill.trainer.models.closed_network import close_layers, close_network
from unstill.trainer.models.position_bias import look_up_position_biases
from unstill.trainer.models.registry import build_model
from unstill.trainer.monitoring.flops import step_flops
from unstill.trainer.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = ("attention", "gelu", "mlp")


class Vit(nn.Module):
    """An encoder block of torchvision's ViT, and attention by function, with a bias of its own."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
        self.block = EncoderBlock(2, 16, 32, 0.0, dropout)
        self.qkv, self.bias, self.head = nn.Linear(16, 48), nn.Parameter(torch.randn(1, 2, 1, 8)), nn.Linear(16, 4)

    def forward(self, x):
        y = self.block(self.embed(x).flatten(2).transpose(1, 2))
        q, k, v = self.qkv(y).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind()
        y = y + F.scaled_dot_product_attention(q, k, v, self.bias, scale=0.5).transpose(1, 2).flatten(2)
        return self.head(y.mean(1))


def network(family: str) -> tuple[nn.Module, tuple[int, int]]:
    """A small network in float64, and the (T, side) of its clips."""
    torch.manual_seed(0)
    if family == "swin":  # both kinds of block, padded windows of fewer frames than configured
        model = SwinTransformer3d([2, 4, 4], 12, [2], [2], [8, 3, 3], stochastic_depth_prob=0.0, num_classes=4)
        return model.double(), (4, 28)
    if family == "vit":
        return Vit().double(), (4, 16)
    blocks = [  # one pools queries, the other keys
        mvit.MSBlockConfig(2, 8, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
        mvit.MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
    ]
    v2 = family == "mvit_v2"
    options = {"residual_pool": v2, "rel_pos_embed": v2, "proj_after_attn": v2, "residual_with_cls_embed": not v2}
    return mvit.MViT((32, 32), 4, blocks, dropout=0.0, num_classes=4, **options).double(), (4, 32)


def gradients(
    model: nn.Module,
    clip: tuple[int, int],
    closed: bool,
    backend: str | None = None,
    autocast: torch.dtype | None = None,
    forward: str = "two",
) -> torch.Tensor:
    """All gradients of ALBAR's loss as one vector."""
    frames, side = clip
    generator = torch.Generator().manual_seed(1)
    motion = torch.randn(2, 3, frames, side, side, dtype=torch.float64, generator=generator)
    motion = motion.to(next(model.parameters()).dtype)
    static = motion[:, :, 1:2].expand_as(motion).contiguous().requires_grad_(True)
    loss = LossModule(model, Albar(gp_norm="per_sample", forward=forward), autocast, closed_calls=closed)
    if backend:
        torch._dynamo.reset()
        loss.compile(fullgraph=True, dynamic=False, backend=backend)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        loss(motion, static, torch.tensor([1, 3]), True)[0].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", ["swin", "mvit_v1", "mvit_v2", "vit"])
def test_a_steps_gradients_are_those_of_the_plain_network(family):
    plain, clip = network(family)
    plain.train()
    expected = gradients(copy.deepcopy(plain), clip, False)
    for layers in LAYERS:
        closed = copy.deepcopy(plain)
        assert close_network(closed, "auto", layers, penalty=True) == layers
        assert [(k, v.shape) for k, v in closed.state_dict().items()] == [
            (k, v.shape) for k, v in plain.state_dict().items()
        ]
        assert relative(gradients(closed, clip, True), expected) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, layers, backend",
    [
        ("swin", "mlp", "inductor"),  # its first half is aot_eager_decomp_partition
        ("mvit_v2", "attention", "aot_eager_decomp_partition"),
        ("vit", "gelu", "aot_eager_decomp_partition"),
    ],
)
def test_a_compiled_steps_gradients_are_those_of_the_plain_network(family, layers, backend):
    plain, clip = network(family)
    if family == "swin":
        plain.features[0] = plain.features[0][1:]  # the shifted block has all that the other has
    closed = copy.deepcopy(plain.train())
    close_network(closed, "auto", layers, penalty=True)
    expected = gradients(plain, clip, False)
    # one pass for both kinds of clips: two thirds of the C++, of which each file costs g++ a second
    forward = "joint" if backend == "inductor" else "two"
    assert relative(gradients(closed, clip, True, backend, forward=forward), expected) < 1e-12


@pytest.mark.slow
def test_full_swin_keeps_what_the_bars_allow():
    """Counted on the meta device at full shape: clips of 32 x 224 x 224, peak memory and operations."""

    def measured(method, layers: str, clips: int = 1, parts: int = 1) -> Meter:
        with torch.device("meta"):
            model = build_model("swin3d_t", 51)
            motion, target = torch.empty(clips, 3, 32, 224, 224), torch.zeros(clips, dtype=torch.int64)
        if layers:
            look_up_position_biases(model)
            close_network(model, "auto", layers, penalty=True)
        with Meter() as meter:
            gradient_step(model, method, motion, target, parts=parts)
        return meter

    plain = measured(Baseline(), "")
    assert plain.peak / 2**20 == pytest.approx(2623, abs=1)  # what an allocator on a CPU measures
    for layers, memory, operations in (("attention", 1.4, 3.5), ("gelu", 1.05, 3.6), ("mlp", 0.8, 4.1)):
        closed = measured(Albar(), layers)
        assert closed.peak <= memory * plain.peak and closed.flops <= operations * plain.flops
    six = measured(Baseline(), "", 6).peak
    for layers, memory in (("attention", 0.65), ("gelu", 0.5)):
        assert measured(Albar(), layers, 6, 3).peak <= memory * six


class Convolutions(TorchDispatchMode):
    """The spatial sizes of the kernels of all convolutions that are run, and how many weight gradients."""

    def __init__(self):
        super().__init__()
        self.kernels, self.weight_gradients = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._opname
        if name.startswith("convolution"):
            weight = {"convolution_dgrad": 1, "convolution_backward": 2, "convolution_wgrad": 2}.get(name, 1)
            self.kernels.add(tuple(args[weight].shape[2:]))
            by_flag = name == "convolution_backward" and args[10][1]
            self.weight_gradients += name == "convolution_wgrad" or by_flag
        return func(*args, **kwargs or {})


def convolutions(name: str, closed: str) -> tuple[nn.Module, Convolutions]:
    with torch.device("meta"):
        model = network("swin")[0] if name == "reduced_swin" else build_model(name, 5)
        frames, side = {"reduced_swin": (4, 28), "mvit_v2_s": (16, 224)}.get(name, (8, 64))
        motion = torch.empty(2, 3, frames, side, side, dtype=next(model.parameters()).dtype)
    close_network(model, closed, "auto", penalty=True)
    static = torch.empty_like(motion).requires_grad_(True)
    with Convolutions() as seen:
        z = model(static)
        torch.autograd.grad(z.sum(), static, create_graph=True)
    assert seen.weight_gradients == 0  # nobody uses them in the inner gradient
    with Convolutions() as seen:
        loss = LossModule(model, Albar())
        loss(motion, static, torch.zeros(2, dtype=torch.int64, device="meta"), True)[0].backward()
    return model, seen


@pytest.mark.parametrize(
    "name",
    [
        *("reduced_swin", "motion_cnn"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("r3d_18", "motion_resnet", "mvit_v2_s")),
    ],
)
def test_no_convolution_of_a_step_has_a_kernel_larger_than_the_layers(name):
    model, seen = convolutions(name, "auto")
    layers = {tuple(p.shape[2:]) for p in model.parameters() if p.dim() == 5}
    assert seen.kernels <= layers
    # ATen's own double backward takes the output map for a kernel
    assert not convolutions(name, "off")[1].kernels <= layers


@pytest.mark.slow
def test_closed_convolutions_are_counted_and_cost_no_more():
    with torch.device("meta"):
        model = build_model("r3d_18", 5)
    plain = step_flops(model, Albar(), 16, 112)
    close_network(model, "auto", "auto", penalty=True)
    # ATen's form of a weight gradient computes more than is needed, and cuts it off
    assert 0.98 * plain < step_flops(model, Albar(), 16, 112) <= plain


def test_a_run_with_a_penalty_closes_its_layers():
    config, data = RECIPES["hmdb51_albar"](), SimpleNamespace(classes=["jump", "run"])
    config = replace(config, model=replace(config.model, weights="none"))
    found = []
    for method in (config.method, replace(config.method, w_gp=0.0)):
        with torch.device("meta"):
            model, _ = build_networks(replace(config, method=method), data, torch.device("meta"), {})
        found.append({type(module) for module in model.modules()})
    assert {ClosedWindowAttention, PatchConv3d} <= found[0]
    assert not {ClosedWindowAttention, PatchConv3d} & found[1]


def test_a_run_in_bf16_on_a_cpu_has_the_convolutions_whose_weight_gradient_is_right():
    data = SimpleNamespace(classes=["jump", "run"])
    plain = RECIPES["demo_baseline"]()
    for precision, device, closed in (("bf16", "cpu", True), ("bf16", "cuda", False), ("fp32", "cpu", False)):
        config = replace(plain, device=device, step=replace(plain.step, precision=precision))
        model, _ = build_networks(config, data, torch.device("cpu"), {})
        assert any(isinstance(module, ClosedConv3d) for module in model.modules()) == closed


def test_layers_are_closed_where_the_penalty_is_and_dropout_inside_them_is_refused():
    model = Vit()
    assert close_network(model, "auto", "auto", penalty=False) == "off" and type(model.embed) is nn.Conv3d
    with pytest.raises(InputError, match=r"block\.self_attention \(MultiheadAttention\) has dropout 0\.1 inside"):
        close_layers(Vit(0.1), "attention")
    assert close_network(Vit(0.1), "auto", "auto", penalty=True) == "off"
    mlp = nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 2))
    with pytest.raises(InputError, match=r"has dropout 0\.5 inside"):
        close_layers(nn.Sequential(mlp), "gelu")
    swin = SwinTransformer3d([2, 4, 4], 12, [2], [2], [2, 3, 3], attention_dropout=0.2)
    with pytest.raises(InputError, match=r"--step\.closed-layers off"):
        close_layers(swin, "attention")
    q = torch.randn(1, 1, 3, 8)
    with ClosedCalls(), pytest.raises(InputError, match=r"attention has dropout 0\.3"):
        F.scaled_dot_product_attention(q, q, q, dropout_p=0.3)


def test_calls_that_have_no_closed_form_are_pytorchs():
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    sees = torch.rand(2, 1, 5, 7) > 0.2
    for options in ({"is_causal": True}, {"attn_mask": sees}, {"attn_mask": torch.randn(2, 1, 5, 7)}, {}):
        expected = F.scaled_dot_product_attention(q, k, k, **options)
        with ClosedCalls():
            found = F.scaled_dot_product_attention(q, k, k, **options)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["swin", "mvit_v2", "vit"])
def test_in_bf16_closed_layers_are_as_exact_as_plain_ones(family):
    plain, clip = network(family)
    exact = gradients(copy.deepcopy(plain), clip, False)
    errors = []
    for layers in ("off", *LAYERS):
        closed = copy.deepcopy(plain).float()
        close_network(closed, "auto", layers, penalty=True)
        found = gradients(closed, clip, layers != "off", autocast=torch.bfloat16)
        errors.append(relative(found.double(), exact))
    assert max(errors) < 1.2 * errors[0] < 0.1
