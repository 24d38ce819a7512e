"""Methods: each file says what the loss of a batch is. The loop knows none of them by name.

A method is a frozen dataclass of its weights with

    static                  "none" or "full": whether it wants static clips
    twice_differentiable    whether any of its steps needs a gradient of a gradient
    penalises(step)         whether this step does
    loss(logits, rows, motion, static, target, *, penalise) -> (loss, terms)

``loss`` runs inside the compiled step: plain tensor code, no host synchronisation, the same in eager.
"""

from .albar import Albar
from .baseline import Baseline

Method = Baseline | Albar

__all__ = ["Albar", "Baseline", "Method"]
