"""How an adversarial objective on static clips goes wrong: class flipping, entropy collapse, an unbounded loss."""

import math


def collapse_symptoms(record: dict[str, float], classes: int) -> dict[str, tuple[bool, str]]:
    """See ``terms.MethodDefaults.symptoms``.

    Args:
        record: ``static_entropy``, ``static_ce`` (nats), ``static_flip``, ``top1`` (shares) and ``epoch`` are read.
        classes: number of classes; the entropy of a uniform answer is ``ln(classes)``.
    """
    entropy, flip = record.get("static_entropy"), record.get("static_flip", 0)
    static_ce, top1, epoch = record.get("static_ce", 0.0), record.get("top1", 1.0), record.get("epoch", 0)
    if entropy is None:
        return {}
    uniform = math.log(classes)
    return {
        "flipping": (
            flip > 0.5,
            f"static clips are confidently given a wrong class ({100 * flip:.0f} % of them): class flipping, which "
            "hides the label instead of forgetting it; raise --method.w-ent or lower --method.w-adv",
        ),
        "entropy": (
            epoch >= 1 and entropy < 0.1 * uniform and flip <= 0.5,
            f"static entropy is stuck at {entropy:.2f} of {uniform:.2f} nats: the network still answers from a "
            "still frame; raise --method.w-ent",
        ),
        "unbounded": (
            static_ce > 5 * uniform,
            f"static cross entropy has run to {static_ce:.1f} nats (a uniform answer has {uniform:.1f}): the loss "
            "falls without bound; lower --method.w-adv",
        ),
        "chance": (
            epoch >= 2 and top1 < 1.5 / classes,
            f"motion accuracy is at chance ({100 * top1:.1f} %) after {epoch:.1f} epochs: the static terms may "
            "outweigh it; lower --method.w-adv or --method.w-gp",
        ),
    }
