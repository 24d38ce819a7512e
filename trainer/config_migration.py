"""Configurations that version 0.1.0 saved, in the form that this version reads."""

from typing import Any

# `torus_roll: true` was this transform
CIRCULAR_SHIFT = "unstill.trainer.demo.circular_shift:CircularShift"


def migrate(plain: dict[str, Any]) -> dict[str, Any]:
    """The saved configuration with every name that has changed since 0.1.0; one of this version is left as it is."""
    if "torus_roll" not in plain:
        return plain
    plain = dict(plain)
    rolls = plain.pop("torus_roll")
    plain["inputs"] = {name: plain.pop(name) for name in ("mean", "std", "people") if name in plain}
    plain["inputs"]["transform"] = {"kind": CIRCULAR_SHIFT} if rolls else None
    if "beside" in plain["method"]:
        method = dict(plain["method"])
        base = method.pop("beside")
        plain["method"] = method | {"base": base}
    if plain["optimiser"]["name"] == "lamb":  # ours is gone: such a run can be evaluated, and continued with apex
        plain["optimiser"] = plain["optimiser"] | {"backend": "apex"}
    # false was the default; what it is now differs by rounding
    plain["step"] = plain["step"] | {"closed_conv": "on" if plain["step"]["closed_conv"] else "auto"}
    return plain
