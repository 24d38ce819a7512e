"""Methods: each file says what the loss of a batch is, or how a batch is augmented. The loop knows none by name.

A method is a frozen dataclass of its weights (``terms.MethodDefaults`` has the usual answers) with

    static                  "none" or "full": whether it wants static clips
    twice_differentiable    whether any of its steps needs a gradient of a gradient
    needs_people            whether it wants to know where people are in each clip
    penalises(step)         whether this step does
    tables(data)            data of its own, a row for each sample
    module(model, ...)      parameters of its own
    loss(network, rows, motion, static, target, *, penalise, side) -> (loss, terms)

``loss`` runs inside the compiled step: plain tensor code, no host synchronisation, the same in eager.

A batch augmentation (``augmentation.BatchAugmentation``) changes clips and labels before the loss, so any of them goes
with any method: ALBAR + StillMix is ``method=Albar(...), augmentation=StillMix(...)``. The other losses go with ALBAR
as ``Albar(beside=Sdn(...))``.
"""

from .albar import Albar
from .baseline import Baseline
from .sdn import Sdn
from .two_streams import TwoStreams

Method = Baseline | Albar | Sdn | TwoStreams

__all__ = ["Albar", "Baseline", "Method", "Sdn", "TwoStreams"]
