"""Clips reach the step in the dtype that it computes in, static ones as one frame."""

import copy

import pytest
import torch
from synthetic_run import FRAMES, SIZE, clips_at, layer_norm_net, make_dataset, run_config
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.kernels import clip_prep
from unstill.trainer.batch import Batch
from unstill.trainer.inputs.prepare import Prepare, clip_options
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar
from unstill.trainer.passes import backward_in_passes, step_passes
from unstill.trainer.step_config import StepConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def small_swin(classes):
    return SwinTransformer3d([2, 4, 4], 24, [2, 2], [3, 6], [8, 7, 7], stochastic_depth_prob=0.0, num_classes=classes)


@pytest.mark.parametrize("network", [small_swin, layer_norm_net])
def test_bf16_clips_give_the_losses_and_gradients_of_float32_clips_to_the_bit(network):
    torch.manual_seed(0)
    net, method = network(4), Albar()
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = []
    for dtype, static in ((torch.float32, "full"), (torch.bfloat16, "frame")):
        options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2), "dtype": dtype, "static": static}
        motion, still = clip_prep(frames, t_idx=torch.tensor([1, 3]), **options)
        module = LossModule(copy.deepcopy(net), method, torch.bfloat16)
        passes = step_passes(method, 2, True)
        loss, terms = backward_in_passes(module, Batch(motion, still, torch.tensor([0, 1])), passes)
        found.append([loss, *terms.values(), *(p.grad for p in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("precision", "item"), [("bf16", 2), ("fp32", 4), ("fp64", 8)])
def test_a_prepared_clip_takes_one_clip_and_one_frame(tmp_path, precision, item):
    make_dataset(tmp_path / "data")
    config = run_config(tmp_path, step=StepConfig(precision=precision, compile="off"))
    motion, static = Prepare(config)(clips_at(range(4)))
    assert static.shape == (4, 3, 1, SIZE, SIZE)
    assert motion.nbytes + static.nbytes == 4 * 3 * (FRAMES + 1) * SIZE**2 * item
    assert motion.dtype == static.dtype == clip_options(config)["dtype"]
