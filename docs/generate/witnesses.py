"""What the demonstration's models read, from ``witnesses.json``, for docs/diagnose.md."""

from blocks import paragraph, table, while_true
from results import Results

FILE = "witnesses"
MODELS = ("cross entropy", "ALBAR")
LAYERS = ("features.2", "features.5", "features.8", "penultimate")
SCORES = ("static", "dynamic")


def blocks(results: Results) -> dict[str, str]:
    """``witnesses: information``, ``witnesses: layers`` and ``witnesses: evidence``."""

    def found(model: str, what: str) -> float:
        return results.value(FILE, f"{model}: {what}")

    (seeds,) = (note for note in results.file(FILE)["notes"] if note.startswith("seeds "))
    return {
        "witnesses: information": information(found, seeds.partition(";")[0]),
        "witnesses: layers": layers(found),
        "witnesses: evidence": evidence(found, results.value(FILE, "an even map: heat on the actor, Grad-CAM")),
    }


def information(found, seeds: str) -> str:
    """Shares of what there is to know that a linear probe finds; and what they say."""
    rows = []
    for layer, words in (("logits", "the logits"), ("penultimate", "the last features")):
        for clips, kind in (("still", "a still clip"), ("filmed", "the moving clip")):
            for what in ("class", "scene, given the class", "actor, given the class"):
                cells = []
                for model in MODELS:
                    cell = f"{found(model, f'{what}, in {layer} of {clips} clips') + 0:.0f} %".replace("-0 %", "0 %")
                    if what == "class":
                        cell += f" ({found(model, f'class named by a probe, from {layer} of {clips} clips'):.0f} %)"
                    cells.append(cell)
                about = what.replace("actor,", "actor's appearance,")
                rows.append([f"{words} of {kind}" if what == "class" else "", f"the {about}", *cells])
    heads = ["a linear probe of", "finds, of what there is to know (and names in so many clips)", *MODELS]
    still = {model: found(model, "class, in logits of still clips") for model in MODELS}
    named = found("ALBAR", "class named by a probe, from logits of still clips")
    scene = {model: found(model, "scene, given the class, in logits of filmed clips") for model in MODELS}
    actor = {model: found(model, "actor, given the class, in logits of filmed clips") for model in MODELS}
    bias = [found(model, "B_scene of one still frame, IID") for model in MODELS]
    text = paragraph(
        f"Means of {seeds}.",
        while_true(
            still["ALBAR"] > still["cross entropy"] / 2,
            f"ALBAR's logits hold {still['ALBAR']:.0f} % of the class of a still clip, cross entropy's "
            f"{still['cross entropy']:.0f} %, and a probe names it in {named:.0f} % of the clips: the network knows "
            "the label that it avoids.",
        ),
        while_true(
            scene["ALBAR"] < 10 < scene["cross entropy"],
            "What it did remove is the scene, from the logits of moving clips.",
        ),
        while_true(
            actor["ALBAR"] < actor["cross entropy"] * 2 / 3,
            "They also hold less of the actor's appearance.",
        ),
        f"B_scene of one still frame is {bias[0]:.2f} and {bias[1]:.2f} nats (2.08 is everything).",
    )
    return table(heads, rows, 2) + "\n\n" + text


def layers(found) -> str:
    """Static and dynamic scores by layer."""
    rows = [
        [f"`{layer}`", *(f"{found(model, f'{score} score, {layer}'):.2f}" for model in MODELS for score in SCORES)]
        for layer in LAYERS
    ]
    return table(["layer", *(f"{model}, {score}" for model in MODELS for score in SCORES)], rows)


def evidence(found, even: float) -> str:
    """The share of the heat on the actor."""
    cam = [found(model, "heat on the actor, Grad-CAM") for model in MODELS]
    integrated = [found(model, "heat on the actor, integrated gradients") for model in MODELS]
    return paragraph(
        f"On Confl-FG clips both models have {min(cam + integrated) / even:.0f} to {max(cam + integrated) / even:.0f} "
        f"times the actor's area on the actor: Grad-CAM {cam[0]:.0f} % (cross entropy) and {cam[1]:.0f} % (ALBAR), "
        f"integrated gradients {integrated[0]:.0f} and {integrated[1]:.0f} %, an even map {even:.0f} %."
    )
