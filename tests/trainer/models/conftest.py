import pytest
import torch

from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar


@pytest.fixture
def penalty_gradients(one_thread):
    """A function (net, motion, target, compiled) -> gradients of ALBAR's loss by the parameters."""

    def gradients(net, motion, target, compiled):
        loss = LossModule(net, Albar(gp_norm="per_sample"))
        static = motion[:, :, 1:2].expand_as(motion).contiguous().requires_grad_(True)
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            if compiled:
                torch._dynamo.reset()
                loss.compile(fullgraph=True, dynamic=False, backend="aot_eager")
            loss(motion, static, target, True)[0].backward()
        return [p.grad for p in net.parameters()]

    return gradients
