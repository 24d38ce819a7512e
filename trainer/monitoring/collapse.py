"""What goes wrong with an adversarial objective, said in words while it can still be mended."""

import math


class CollapseWatch:
    """Turns logged metrics into warnings; each is given once until its cause is gone.

    Args:
        classes: number of classes; the entropy of no idea at all is ``ln(classes)``.
        patience: logged steps in a row that a symptom must last.
    """

    def __init__(self, classes: int, patience: int = 3):
        self._chance, self._most = 1 / classes, math.log(classes)
        self._patience = patience
        self._seen: dict[str, int] = {}

    def look(self, record: dict) -> list[str]:
        """Warnings that this logged record gives rise to.

        Args:
            record: may hold ``static_entropy``, ``static_ce`` (nats), ``static_flip``, ``top1`` (shares), ``epoch``.
        """
        entropy, flip = record.get("static_entropy"), record.get("static_flip", 0)
        static_ce, top1 = record.get("static_ce", 0.0), record.get("top1", 1.0)
        symptoms = {}
        if entropy is not None:
            symptoms["flipping"] = (
                flip > 0.5,
                f"static clips are confidently given a wrong class ({100 * flip:.0f} % of them): class flipping, which "
                "hides the label instead of forgetting it; raise --method.w-ent or lower --method.w-adv",
            )
            symptoms["entropy"] = (
                record.get("epoch", 0) >= 1 and entropy < 0.1 * self._most and flip <= 0.5,
                f"static entropy is stuck at {entropy:.2f} of {self._most:.2f} nats: the network still answers from a "
                "still frame; raise --method.w-ent",
            )
            symptoms["unbounded"] = (
                static_ce > 5 * self._most,
                f"static cross entropy has run to {static_ce:.1f} nats (no idea is {self._most:.1f}): the loss falls "
                "without bound; lower --method.w-adv",
            )
            symptoms["chance"] = (
                record.get("epoch", 0) >= 2 and top1 < 1.5 * self._chance,
                f"motion accuracy is at chance ({100 * top1:.1f} %) after {record.get('epoch', 0):.1f} epochs: the "
                "static terms may outweigh it; lower --method.w-adv or --method.w-gp",
            )
        warnings = []
        for name, (present, text) in symptoms.items():
            self._seen[name] = self._seen.get(name, 0) + 1 if present else 0
            if self._seen[name] == self._patience:
                warnings.append(text)
        return warnings
