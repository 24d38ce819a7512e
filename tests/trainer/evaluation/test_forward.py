"""Networks in an evaluation: in the precision of their training, and compiled once for all batches and calls."""

from functools import partial

import pytest
import torch
from synthetic_run import Net
from torch import nn

from unstill.kernels import clip_prep
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.evaluation.forward import COMPILE_FROM, Forward
from unstill.trainer.evaluation.subject import Subject
from unstill.trainer.validation import Averaged

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def subject(model: nn.Module, precision: str) -> Subject:
    clip = ClipConfig(frames=4, stride=1, size=12)
    return Subject("net", model.eval(), tuple("abcd"), clip, (0.4,) * 3, (0.2,) * 3, precision)


def some_frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 4, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def logits(forward: Forward, frames: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        ((_, found),) = forward(frames)
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_logits_are_those_of_the_training_s_precision(precision):
    torch.manual_seed(0)
    model, frames = Net(4, nn.BatchNorm3d(4)), some_frames(3)
    found = logits(Forward([subject(model, precision)], CPU, 3, 1), frames)
    clips = clip_prep(frames, mean=(0.4,) * 3, std=(0.2,) * 3)[0]
    dtype = torch.float64 if precision == "fp64" else torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = model(clips.to(dtype))
    assert expected.dtype == (torch.bfloat16 if precision == "bf16" else dtype)
    assert found.dtype == torch.float64 and torch.equal(found, expected.double())


def test_a_compiled_network_is_compiled_once_and_sees_new_weights(monkeypatch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.manual_seed(0)
    model = Net(4, nn.BatchNorm3d(4))
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    network = Averaged(model, average)
    for shift in (0.0, 1.0):  # two validations of a run, between which the average has moved
        with torch.no_grad():
            average["head.bias"] += shift
        forward = Forward([subject(network, "fp32")], CPU, 4, 1, "on")
        eager = Forward([subject(network, "fp32")], CPU, 4, 1, "off")
        for count in (4, 3):  # the last batch is short
            found = logits(forward, some_frames(count))
            assert len(found) == count
            torch.testing.assert_close(found, logits(eager, some_frames(count)))
    assert len(compiled) == 1


def test_compiling_is_left_out_where_it_does_not_pay():
    one = [subject(Net(4, nn.BatchNorm3d(4)), "fp32")]
    assert not Forward(one, CPU, 4, 10 * COMPILE_FROM).compiled and Forward(one, CPU, 4, 1, "on").compiled
