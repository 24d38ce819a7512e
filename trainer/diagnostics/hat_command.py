"""``unstill diagnose hat``: HAT's ratios, on videos without people, without scenes, or with both swapped."""

from dataclasses import asdict, dataclass

from ..evaluation.derived_clips import as_filmed
from ..evaluation.evaluate import predict
from ..evaluation.facts import describe_dataset, describe_runs
from ..evaluation.protocols import Share
from ..evaluation.subject import load_subject
from ..evaluation.truth import labels_from_csv, read_truth
from .clip_features import check_subjects
from .config import HatConfig
from .hat import hat_ratios, swap_scores
from .presentation import Bar, Chart, Diagnosis, Table, interval, number

TITLES = {"bor": "BOR (lower)", "hor": "HOR (higher)", "shacc": "SHAcc (higher)", "sberr": "SBErr (lower)"}
SHOWS = (
    "BOR and HOR: accuracy on videos without the human, and on the human alone, in percent of the accuracy on the "
    "originals. Swaps: how often the human's class is named (SHAcc), and how often the background's (SBErr).",
    "Painted-out and pasted videos are unlike what a model was trained on. The kind of swaps with backgrounds of the "
    "human's own class shows what pasting alone costs; compare the other kinds with it. The human's appearance and "
    "motion are not told apart here.",
)


@dataclass(frozen=True)
class HatFound:
    """Attributes:
    ratios: bor and hor, as far as their videos are given, in percent of the accuracy on the originals.
    swaps: shacc and sberr, and those of each kind, ``shacc.KIND``.
    """

    ratios: dict[str, float]
    swaps: dict[str, Share]

    def values(self) -> dict[str, float]:
        """Percent by name."""
        return self.ratios | {name: share.value for name, share in self.swaps.items()}


def diagnose_hat(config: HatConfig) -> Diagnosis:
    """Measure every model.

    Raises:
        InputError: a model or dataset cannot be used, or keys do not join.
    """
    found = measure_hat(config)
    names = list(dict.fromkeys(name for of in found.values() for name in of.values()))
    rows, bars = [], []
    for name in names:
        measure, _, kind = name.partition(".")
        title = TITLES[measure] + (f", {kind}" if kind else "")
        cells = []
        for model, of in found.items():
            if name in of.swaps:
                share = of.swaps[name]
                cells.append(interval(share.value, share.low, share.high))
                bars.append(Bar(title, model, share.value, share.low, share.high))
            else:
                cells.append(number(of.ratios[name]) if name in of.ratios else "")
                bars.append(Bar(title, model, of.ratios.get(name, float("nan"))))
        rows.append((title, *cells))
    sets = {name.replace("_", " "): getattr(config, name) for name in _SETS if getattr(config, name) is not None}
    return Diagnosis(
        name="hat",
        title="Does the model read the human or the background?",
        shows=SHOWS,
        content={
            model: {"ratios": of.ratios, "swaps": {n: asdict(s) for n, s in of.swaps.items()}}
            for model, of in found.items()
        },
        charts=[Chart("HAT's measures, percent", bars, max(100.0, *(b.value for b in bars if b.value == b.value)))],
        tables=[Table("Percent", ("measure", *found), rows)],
        facts=describe_runs(config.runs) | {name: describe_dataset(path) for name, path in sets.items()},
    )


_SETS = ("original", "background_only", "human_only", "swap")


def measure_hat(config: HatConfig) -> dict[str, HatFound]:
    """Model -> what its predictions on the given videos amount to."""
    subjects = [load_subject(run, trust_model_code=config.trust_model_code) for run in config.runs]
    check_subjects(subjects)
    found: dict[str, dict] = {subject.name: {} for subject in subjects}
    for name in (name for name in _SETS if getattr(config, name) is not None):
        for (subject, _), predictions in predict(
            subjects, getattr(config, name), {name: as_filmed}, config.run
        ).items():
            found[subject][name] = predictions
    measures: dict[str, HatFound] = {}
    for subject in subjects:
        sets = found[subject.name]
        ratios, swaps = {}, {}
        if "original" in sets:
            ratios = hat_ratios(sets["original"], sets.get("background_only"), sets.get("human_only"))
        if "swap" in sets and config.swap_backgrounds is not None:
            behind = labels_from_csv(config.swap_backgrounds, "background", subject.classes)
            rows = read_truth(config.swap_backgrounds)
            kinds = {key: row["kind"] for key, row in rows.items() if row.get("kind")}
            swaps = swap_scores(sets["swap"], behind, kinds or None)
        measures[subject.name] = HatFound(ratios, swaps)
    return measures
