"""``unstill ood``: test videos with other backgrounds."""

from ...pipeline.errors import InputError
from .help_texts import parse
from .suggestions import unknown


def ood(arguments: list[str]) -> int:
    """``unstill ood build SOURCE MASKS OUT`` and ``unstill ood check SOURCE MASKS LIST``."""
    from ...pipeline.ood.build import OodConfig, build

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: unstill ood build SOURCE MASKS OUT [--option value ...]")
        print("       unstill ood check SOURCE MASKS LIST [--option value ...]\n")
        print("build: cut the people out of test videos, and put them before other")
        print("backgrounds: SCUBA, Confl-FG, HAT.")
        print("check: measure the masks first, and list the videos to look at.")
        print("unstill ood build --help shows every option.")
        return 0
    action, *rest = arguments
    if action == "check":
        return _check_masks(rest)
    if action != "build":
        raise InputError(unknown("action", action, ("build", "check"), "unstill ood"))
    config = parse(OodConfig, prog="unstill ood build", args=rest)
    report = build(config)
    print(f"{report.videos}: {report.composites} videos; {len(report.left_out)} source videos left out")
    for path, reason in list(report.left_out.items())[:10]:
        print(f"  {path}: {reason}")
    if len(report.left_out) > 10:
        print(f"  and {len(report.left_out) - 10} more: {report.videos.parent / 'left_out.csv'}")
    if report.shards is None:
        print(f"next: unstill convert {report.videos} DATASET --classes TRAIN/dataset.json --allow-missing,")
    data, truth = report.shards or "DATASET", report.videos.parent / "truth.csv"
    then = {
        "scuba": f"evaluate RUN --scuba NAME {data}",
        "conflfg": f"evaluate RUN --conflfg {data} --conflfg-truth {truth}",
        "background_only": f"diagnose hat RUN --original TEST --background-only {data}",
        "human_only": f"diagnose hat RUN --original TEST --human-only {data}",
        "swap": f"diagnose hat RUN --swap {data} --swap-backgrounds {truth}",
    }
    print(f"then: unstill {then[config.kind]}")
    return 0


def _check_masks(arguments: list[str]) -> int:
    from ...pipeline.ood.mask_check import MaskCheckConfig, check_masks, mean_leak

    config = parse(MaskCheckConfig, prog="unstill ood check", args=arguments)
    found = check_masks(config)
    flagged = sum(isinstance(quality, str) or bool(quality.flags) for quality in found.values())
    print(f"{config.out}: {flagged} of {len(found)} videos to look at, listed first")
    if config.boxes is not None:
        print(f"the boxes let background through: {100 * mean_leak(found):.1f} % of their pixels on average")
    return 0
