"""``unstill ood``: test videos with other backgrounds."""

import tyro

from ...pipeline.errors import InputError
from .suggestions import unknown


def ood(arguments: list[str]) -> int:
    """``unstill ood build SOURCE MASKS OUT`` and ``unstill ood check SOURCE MASKS LIST``."""
    from ...pipeline.ood.build import OodConfig, build

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: unstill ood build SOURCE MASKS OUT [--option value ...]")
        print("       unstill ood check SOURCE MASKS LIST [--option value ...]\n")
        print("build: cut the people out of test videos and put them before other backgrounds.")
        print("check: measure the masks first, and list the videos to look at.")
        print("unstill ood build --help shows every option.")
        return 0
    action, *rest = arguments
    if action == "check":
        return _check_masks(rest)
    if action != "build":
        raise InputError(unknown("action", action, ("build", "check"), "unstill ood"))
    report = build(tyro.cli(OodConfig, prog="unstill ood build", args=rest))
    print(f"{report.videos}: {report.composites} videos; {len(report.left_out)} source videos left out")
    for path, reason in list(report.left_out.items())[:10]:
        print(f"  {path}: {reason}")
    if len(report.left_out) > 10:
        print(f"  and {len(report.left_out) - 10} more: {report.videos.parent / 'left_out.csv'}")
    if report.shards is None:
        print(f"next: unstill convert {report.videos} DATASET --classes TRAIN/dataset.json --allow-missing,")
    if (truth := report.videos.parent / "truth.csv").exists():
        print(f"then: unstill evaluate RUN --conflfg {report.shards or 'DATASET'} --conflfg-truth {truth}")
    else:
        print(f"then: unstill evaluate RUN --scuba NAME {report.shards or 'DATASET'}")
    return 0


def _check_masks(arguments: list[str]) -> int:
    from ...pipeline.ood.mask_check import MaskCheckConfig, check_masks, mean_leak

    config = tyro.cli(MaskCheckConfig, prog="unstill ood check", args=arguments)
    found = check_masks(config)
    flagged = sum(isinstance(quality, str) or bool(quality.flags) for quality in found.values())
    print(f"{config.out}: {flagged} of {len(found)} videos to look at, listed first")
    if config.boxes is not None:
        print(f"the boxes let background through: {100 * mean_leak(found):.1f} % of their pixels on average")
    return 0
