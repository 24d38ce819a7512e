"""LAMB (You et al., arXiv 1904.00962) with multi-tensor torch operations; torch itself has none."""

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """Adam whose update of each parameter is rescaled to the parameter's own norm, for very large batches.

    Per parameter p: ``u = m_hat / (sqrt(v_hat) + eps) + weight_decay * p``, then ``p -= lr * |p| / |u| * u``; the ratio
    is 1 where either norm is 0. Like torch's fused optimisers it honours a ``found_inf`` attribute (a one-element
    device tensor): where it is not 0 the step changes nothing, without asking the host.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: added to the update, so that it takes part in the rescaling.
    """

    def __init__(self, params, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Lamb takes no closure")
        found = getattr(self, "found_inf", None)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group, None if found is None else found.reshape(()) == 0)

    def _update(self, params: list[Tensor], group: dict, keep: Tensor | None):
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        grads = [p.grad for p in params]
        if keep is not None:
            # a skipped step sees gradient 0 and decay 1, so NaNs cannot reach the moments
            grads = [torch.where(keep, g, 0.0) for g in grads]
        first = [self.state[p]["exp_avg"] for p in params]
        second = [self.state[p]["exp_avg_sq"] for p in params]
        steps = [self.state[p]["step"] for p in params]
        go = torch.ones((), device=params[0].device) if keep is None else keep.to(torch.float32)
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, [go] * len(steps))
        torch._foreach_lerp_(first, grads, (1 - beta1) * go.to(first[0].dtype))
        torch._foreach_mul_(second, 1 - (1 - beta2) * go)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        count = steps[0].clamp(min=1)
        root = torch._foreach_sqrt(torch._foreach_div(second, 1 - beta2**count))
        torch._foreach_add_(root, group["eps"])
        update = torch._foreach_div(torch._foreach_div(first, 1 - beta1**count), root)
        if group["weight_decay"]:
            torch._foreach_add_(update, params, alpha=group["weight_decay"])
        p_norm, u_norm = torch._foreach_norm(params), torch._foreach_norm(update)
        ratio = [torch.where((p > 0) & (u > 0), p / u, 1.0) * go for p, u in zip(p_norm, u_norm, strict=True)]
        torch._foreach_mul_(update, ratio)
        torch._foreach_add_(params, update, alpha=-group["lr"])
