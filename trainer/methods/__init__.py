"""Methods: each file says what the loss of a batch is. The training loop names none of them.

A method is a frozen dataclass of its weights, derived from ``terms.MethodDefaults``, with

    loss(network, row_losses, motion, static, target, *, penalise, per_sample) -> (loss, terms)
    static_loss(network, row_losses, static, target, *, penalise, per_sample) -> (loss, terms)

(the second only with ``static_pass``) and whatever else of ``MethodDefaults`` differs: static clips, a penalty, data or
parameters of its own, what a run shows and warns of. Losses run inside the compiled step: plain tensor code, no host
synchronisation, the same in eager.

A batch augmentation (``augmentations``) changes clips and labels before the loss, so any of them goes with any method:
ALBAR + StillMix is ``method=Albar(...), augmentation=StillMix(...)``. A loss on motion clips can be the one that ALBAR
is added to: ``Albar(base=Sdn(...))``.

These files import torch inside functions, so that the command line can read a method's options without it.

To add a method: its file, and its name here; in ``base_methods`` instead if ALBAR may be added to it.
"""

from .albar import Albar
from .base_methods import BaseMethod, Sdn, TwoStreams
from .baseline import Baseline

Method = Baseline | Albar | BaseMethod

__all__ = ["Albar", "Baseline", "Method", "Sdn", "TwoStreams"]
