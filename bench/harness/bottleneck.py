"""Which stage of the pipeline holds a training up, and what to do about it: from measured rates to a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.6  # from this share of the machine's limit on, a stage is at its limit, and settings will not help
STACKED = 0.8  # all stages together below this share of the slowest one alone: they are in each other's way
SPARE = 1.1  # a stage with less than this times what is needed is named, though it holds nothing up


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage, measured alone.

    Attributes:
        name: a key of ``REMEDIES``.
        delivered: clips a second, or None where it could not be measured.
        work: what a clip asks of the machine, in ``unit``; None where nothing can be counted.
        unit: bytes, FLOP or frames.
        ceiling: ``unit`` a second that the machine can do, or None.
        resource: what the ceiling is of, in words.
        how: how it was measured, or why it was not.
    """

    name: str
    delivered: float | None
    work: float | None = None
    unit: str = ""
    ceiling: float | None = None
    resource: str = ""
    how: str = ""

    @property
    def rate(self) -> float:
        """What a stage that was measured delivers."""
        assert self.delivered is not None, f"{self.name} was not measured"
        return self.delivered

    @property
    def limit(self) -> float | None:
        """Clips a second that the machine would allow."""
        return self.ceiling / self.work if self.ceiling and self.work else None

    @property
    def of_limit(self) -> float | None:
        """What is delivered, as a share of what the machine would allow."""
        return self.delivered / self.limit if self.delivered and self.limit else None


# stage -> (what to do while it is far from the machine's limit, what to do near it)
REMEDIES = {
    "read": (
        "raise --loader.read-threads and --loader.read-ahead",
        "the memory is at its limit: re-encode to fewer bytes (unstill convert --quality, --short-side)",
    ),
    "disk": (
        "raise --loader.read-threads and --loader.read-ahead, so that more is asked of the disk at a time",
        "put the shards on a faster disk or into memory, or re-encode to fewer bytes (unstill convert --quality)",
    ),
    "decode": (
        "raise --loader.pipelines or --loader.decode-threads, or re-encode with a smaller GOP (unstill convert --gop)",
        "the decoder is at its limit: re-encode with a smaller GOP or picture (unstill convert --gop, --short-side), "
        "lower --clip.stride, or spread the run over more devices",
    ),
    "copy": (
        "raise --batch-size, for large copies are faster, and check that the device has its full PCIe width",
        "the link is at its limit: re-encode to fewer bytes (unstill convert --quality, --short-side)",
    ),
    "clip_prep": (
        "see `unstill bench kernels`: on a GPU the Triton kernel should be near the memory's limit",
        "the memory is at its limit: smaller clips (--clip.size, --clip.frames), or a method without static clips",
    ),
    "together": (
        "the stages stand in each other's way: give the run more cores, or each stage fewer threads "
        "(--loader.decode-threads, --loader.read-threads)",
    )
    * 2,
    "cores": (
        "the loader and the step share them: more cores, a device that computes, or less to decode (unstill convert "
        "--gop, --short-side)",
    )
    * 2,
    "step": (
        "raise --batch-size, and compare --step.compile, --step.precision bf16 and --step.channels-last "
        "(unstill bench step)",
        "the device computes at its limit: more devices (torchrun), a smaller network, or smaller clips",
    ),
}


def verdict(stages: Sequence[Stage], needed: float | None = None) -> str:
    """One sentence: the bottleneck, its numbers, and the remedy.

    Args:
        stages: any of ``REMEDIES``; those without ``delivered`` are named as not measured. "together" is all stages
            before the step at once, "cores" what a CPU has for them and the step.
        needed: clips a second that are wanted; by default what the step alone can take.

    Raises:
        ValueError: no stage was measured, or ``needed`` is not given and the step was not measured.
    """
    measured = {stage.name: stage for stage in stages if stage.delivered is not None}
    step = measured.get("step")
    if needed is None:
        if step is None:
            raise ValueError("the step was not measured: say what is needed")
        needed = step.rate
    cores = measured.pop("cores", None)
    if not measured:
        raise ValueError("no stage was measured")
    worst = slowest(list(measured.values()))
    delivered = worst.rate
    if worst.name not in ("step", "together") and "together" in measured:
        delivered = min(delivered, measured["together"].rate)
    if cores is not None and SPARE * cores.rate < min(delivered, needed):
        text = (
            f"cores-bound: {_clips(needed)} clips/s needed, {_clips(cores.rate)} delivered ({cores.how}); "
            f"{REMEDIES['cores'][0]}"
        )
    elif worst.name == "step" or delivered >= needed:
        text = _enough(measured, step, needed)
    else:
        far, near = REMEDIES[worst.name]
        at_limit = worst.of_limit is not None and worst.of_limit >= NEAR
        text = (
            f"{worst.name}-bound: {_clips(needed)} clips/s needed, {_clips(delivered)} delivered{_share(worst)}; "
            f"{near if at_limit else far}"
        )
    missing = [stage for stage in stages if stage.delivered is None]
    if missing:
        text += f" (not measured: {'; '.join(f'{stage.name}, {stage.how}' for stage in missing)})"
    return text


def slowest(stages: Sequence[Stage]) -> Stage:
    """The stage that delivers least. All "together" are to blame only when no single one explains them."""
    single = [stage for stage in stages if stage.name != "together"]
    worst = min(single, key=lambda stage: stage.rate) if single else stages[0]
    together = next((stage for stage in stages if stage.name == "together"), None)
    if together is None or not single:
        return worst
    before = [stage for stage in single if stage.name != "step"]
    if not before:
        return min(stages, key=lambda stage: stage.rate)
    first = min(before, key=lambda stage: stage.rate)
    if together.rate < STACKED * first.rate:
        return min((together, worst), key=lambda stage: stage.rate)
    # the slowest of them explains what they deliver together
    return first if together.rate < worst.rate else worst


def _enough(measured: dict[str, Stage], step: Stage | None, needed: float) -> str:
    before = {name: stage for name, stage in measured.items() if name != "step"}
    tight = min(before.values(), key=lambda stage: stage.rate, default=None)
    if step is None or step.rate > needed:
        least = min(measured.values(), key=lambda stage: stage.rate)
        return (
            f"nothing holds it up: {_clips(needed)} clips/s needed, every stage delivers at least "
            f"{_clips(least.rate)} ({least.name})"
        )
    far, near = REMEDIES["step"]
    remedy = near if step.of_limit is not None and step.of_limit >= NEAR else far
    took = f"{_clips(needed)} clips/s needed, " if needed > step.rate else ""
    text = f"step-bound: {took}the step takes {_clips(step.rate)} clips/s{_share(step)}"
    if tight is not None:
        text += f", every stage before it delivers at least {_clips(tight.rate)} ({tight.name}"
        text += ", little to spare)" if tight.rate < SPARE * step.rate else ")"
    return f"{text}; {remedy}"


def _share(stage: Stage) -> str:
    if stage.of_limit is None or stage.limit is None:
        return ""
    resource = stage.resource or "the machine"
    return f", {100 * stage.of_limit:.0f} % of the {_clips(stage.limit)} that {resource} would allow"


def _clips(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
