"""What the demonstration shows, in one sentence."""

from collections.abc import Mapping

from .settings import CHANCE, MODELS


def verdict(results: Mapping[str, Mapping[str, float]]) -> str:
    """One sentence on what ALBAR removed, hid and only reduced, from the numbers alone.

    Args:
        results: "baseline" and "albar" -> measure -> percent.
    """
    before, after = results["baseline"], results["albar"]
    lost = {name: max(results[name]["iid"] - results[name]["scuba"], 0) for name in MODELS}
    scufo = f"SCUFO {before['scufo']:.1f} → {after['scufo']:.1f} %, guessing {CHANCE:.1f} %"
    least = f"the label is the least likely class of {after['scufo_least']:.1f} % of the still clips"
    read = f"reads the class from the logits of {before['scufo_probe']:.1f} → {after['scufo_probe']:.1f} %"
    still = f"what a still frame gives away ({scufo}; {least}, and a linear probe {read})"
    scene = (
        f"the influence of the scene (from IID to SCUBA cross entropy loses {lost['baseline']:.1f} points, "
        f"ALBAR {lost['albar']:.1f})"
    )
    actor = (
        "the influence of the moving actor's appearance: with another class's actor and scene it is right on "
        f"{after['anti']:.1f} % of the videos (cross entropy {before['anti']:.1f} %), against {after['iid']:.1f} % on "
        "IID"
    )
    # SCUFO alone never says "removed": a network that makes the label the least likely class is right on fewer still
    # clips than guessing is, and knows the label all the same. What a probe of the logits or features still reads is
    # hidden at best. A scene is removed when a new one costs no more than 5 points. For the actor's appearance the word
    # is never used: anti would have to be as high as IID.
    removed, hid, reduced, kept = [], [], [], []
    silent = after["scufo"] <= CHANCE + 2.5
    unread = max(after["scufo_probe"], after["scufo_feature_probe"]) <= CHANCE + 5
    if silent:
        (removed if unread else hid).append(still)
    else:
        (reduced if after["scufo"] < before["scufo"] else kept).append(still)
    (removed if lost["albar"] <= 5 else reduced if lost["albar"] < lost["baseline"] else kept).append(scene)
    (reduced if after["anti"] > before["anti"] else kept).append(actor)
    parts = [
        f"{verb} {' and '.join(things)}"
        for verb, things in (("hid", hid), ("removed", removed), ("only reduced", reduced), ("did not reduce", kept))
        if things
    ]
    return "ALBAR " + (", ".join(parts[:-1]) + ", but " if len(parts) > 1 else "") + parts[-1] + "."
