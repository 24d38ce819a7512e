"""``unstill ood build``: SCUBA, Confl-FG and HAT's sets from videos and masks of who moves in them.

    OUT/videos/<class>/<video>__<k>.mp4    k counts the backgrounds of one video
    OUT/shards/                            the same as a dataset for `unstill evaluate`, when --like is given
    OUT/manifest.csv                       what each was made from
    OUT/truth.csv                          Confl-FG: key and static_actor, for `unstill evaluate --conflfg-truth`;
                                           swap: key, background and kind, for `unstill diagnose hat --swap-backgrounds`
    OUT/preview.png                        some of them

SCUFO has no files: `unstill evaluate` repeats a frame of each SCUBA video, so the two pair by key. Everything is a
function of the seed and the videos' names; a stopped command goes on where it was, and a finished one does nothing.
"""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from os import cpu_count
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from ..atomic_files import make_folder, write_atomic
from ..conversion.plan import assign_keys
from ..errors import InputError
from ..options import at_least, check_options
from ..progress import Progress
from ..safe_text import csv_cell, printable
from ..sandbox.process import Sandbox
from ..sources.layouts import SourceConfig, list_source
from ..sources.listing import SourceVideo
from .backgrounds import Backgrounds
from .compose import over_background, with_still_actor
from .masks import MaskFrom, MaskValue, either, open_masks
from .paint_out import painted_out
from .preview import write_preview
from .shards import convert_like, model_dataset
from .swaps import Swap, Swaps, like
from .video_files import read_frames, write_frames

Kind = Literal["scuba", "conflfg", "background_only", "human_only", "swap"]
GREY = (124, 116, 104)  # mean colour of ImageNet, what "nothing" is to most networks
COLUMNS = (
    *("path", "class", "source", "first_frame", "frames", "background", "mask_coverage"),
    *("static_source", "static_frame", "static_class", "static_top", "static_left"),
    *("background_class", "kind"),
)
_TRIES = 50  # other videos that are looked at for a still actor before giving up


@dataclass(frozen=True, kw_only=True)
class OodConfig(SourceConfig):
    """Cut the people out of test videos and put them before other backgrounds."""

    masks: Annotated[Path, Positional, arg(metavar="MASKS")]
    """Who moves where in each frame; see --mask-from."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """Folder for the composites. The same command again continues a run that was stopped."""
    kind: Kind = "scuba"
    """scuba: another background. conflfg: also a still actor of another class, cut out of another video. HAT's sets:
    background_only: the human painted out. human_only: everything else in one grey. swap: before another video, its
    human painted out."""
    mask_from: MaskFrom = "segmentation"
    """segmentation: PNG strips, folders of PNGs or COCO run lengths named like the videos; jhmdb: puppet_mask.mat,
    with JHMDB's own videos, which are parts of HMDB51's;
    boxes: .csv, .json, the .pkl of UCF101-24, or folders of .txt."""
    backgrounds: Path | None = None
    """Folder of pictures to put behind (Places365, VQGAN-CLIP); none: sinusoidal stripes."""
    per_video: int = 5
    """Composites of each video; Kinetics-400 has 1 in the published sets, HMDB51 and UCF101 have 5. swap: of each kind
    that is drawn. HAT's other sets have 1 whatever is given."""
    pairs: Path | None = None
    """swap: CSV with the columns human, background (videos below SOURCE, without suffix) and kind (close, far, ...), as
    HAT's lists; by default backgrounds are drawn, of another class (random) and of the same (same)."""
    mask_value: MaskValue | None = None
    """segmentation: the value of foreground in pictures of class numbers (60 is a person in VSPW), or any for all but
    0; by default white, and in colour palettes all but the first."""
    saliency: Path | None = None
    """More segmentation masks, where something stands out: their pixels count as foreground, too, as in the
    published Kinetics-400 set; videos that lack either are left out."""
    saliency_value: MaskValue = "any"
    """Their value of foreground; any: all but 0, as published, so that the faintest saliency counts."""
    first_box_only: bool = True
    """Of several boxes in a frame use the first, as the published UCF101 set does; --no-first-box-only: all."""
    trim: Literal["auto", "on", "off"] = "auto"
    """Whether composites begin at the first frame with a mask and end at the last. auto: with boxes, as published, and
    for HAT; else they have all frames, of which those without a mask show the background alone."""
    smooth: int = 0
    """Also count a pixel as foreground that is so up to this many frames before or after; 1 for Kinetics-400."""
    min_coverage: float = 0.0
    """Share of the picture that the mask of a usable frame must cover; 0.1 for Kinetics-400. 0: any pixel."""
    min_usable: float = 0.0
    """Share of usable frames below which a video is left out; 0.9 for Kinetics-400. 0: one frame suffices."""
    like: Path | None = None
    """Training set made by `unstill convert`: the composites are also converted, to OUT/shards, with its classes, codec
    and size."""
    quality: int = 10
    """Constant rate factor of the H.264 files, 0 (lossless) to 51; they are encoded again when converted."""
    sandbox: Sandbox = "auto"
    """Fences around the processes that decode: require stops where this system lacks one, auto says so and goes on, off
    puts up none (time and memory stay limited)."""
    seed: int = 0
    """Of backgrounds and still actors."""
    workers: int = 0
    """Threads; 0 is one for every core."""

    def __post_init__(self):
        check_options(self, per_video=at_least(1))
        if self.pairs is not None and self.kind != "swap":
            raise InputError("--pairs say which humans and backgrounds are swapped; give --kind swap, too")


@dataclass(frozen=True)
class OodReport:
    """What ``build`` leaves behind.

    Attributes:
        videos: folder of the composites.
        shards: the dataset made of them, or None.
        composites: how many there are.
        left_out: source video -> why it has none.
    """

    videos: Path
    composites: int
    left_out: dict[str, str]
    shards: Path | None = None


def build(config: OodConfig) -> OodReport:
    """Make every composite that is not there yet, then manifest, truth and preview.

    Raises:
        InputError: sources, masks or backgrounds cannot be used, no video has masks, or OUT holds another set.
    """
    listing = list_source(config)
    if config.like is not None:
        model_dataset(config.like)  # to fail before the work, not after it
    make_folder(config.out)
    rows = _finished_rows(config.out)
    _same_settings(config, started=bool(rows))
    work = _Work(config, listing.videos, listing.classes)
    left_out: dict[str, str] = {}
    with (
        Progress(config.kind, len(listing.videos), "videos") as progress,
        ThreadPoolExecutor(config.workers or cpu_count() or 1) as pool,
        open(config.out / "manifest.partial", "w", newline="", buffering=1) as file,
    ):
        log = csv.DictWriter(file, COLUMNS)
        log.writerows(rows.values())
        tasks = {pool.submit(work.video, video, rows): video for video in listing.videos}
        try:
            for task in as_completed(tasks):
                made, reason = task.result()
                for row in made:
                    rows[row["path"]] = row
                    log.writerow(row)
                if reason:
                    left_out[tasks[task].path] = reason
                progress.advance(note=f"{len(left_out)} left out" if left_out else None)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if not rows:
        path, reason = next(iter(left_out.items()), ("", "there are none"))
        if reason == "no masks":
            reason += f" called {Path(path).with_suffix('')}"
        raise InputError(f"{config.masks}: none of the {len(listing.videos)} videos could be used; the first: {reason}")
    _write_lists(config, [rows[path] for path in sorted(rows)], left_out)
    report = OodReport(config.out / "videos", len(rows), left_out)
    if config.like is None:
        return report
    done = convert_like(report.videos, config.out / "shards", config.like, config.workers)
    if done.quarantined:
        raise InputError(f"{done.out}: {done.quarantined} composites were refused; see quarantine.csv there")
    return replace(report, shards=config.out / "shards")


class _Work:
    """Makes the composites of one video at a time; safe to call from several threads."""

    def __init__(self, config: OodConfig, videos: tuple[SourceVideo, ...], classes: tuple[str, ...]):
        for video in videos:
            if video.length is not None or "://" in str(config.source):
                raise InputError(
                    f"{config.source}: {video.path} is a part of a file or not on this machine; give a folder of whole "
                    "videos"
                )
        for name in classes:  # each becomes a folder
            if "/" in name or "\0" in name or name in ("", ".", ".."):
                raise InputError(f"class {printable(name)!r} cannot be the name of a folder; rename it in the list")
        self._config, self._videos, self._classes = config, videos, classes
        self._root = Path(config.source)
        taken: dict[str, str] = {}
        for video in videos:
            if (other := taken.setdefault(self._name(video, 0), video.path)) != video.path:
                raise InputError(f"{config.source}: {other} and {video.path} would have one name; rename one")
        self._masks = open_masks(
            config.masks, config.mask_from, first_box_only=config.first_box_only, value=config.mask_value
        )
        if config.saliency is not None:
            self._masks = either(self._masks, open_masks(config.saliency, "segmentation", value=config.saliency_value))
        self._backgrounds = Backgrounds(config.backgrounds)
        self._swaps = Swaps(config.pairs, videos, config.per_video, config.seed) if config.kind == "swap" else None

    def video(self, video: SourceVideo, done: dict[str, dict]) -> tuple[list[dict], str]:
        """Rows of the composites that were made, and why there are none, or ""."""
        count = {"scuba": self._config.per_video, "conflfg": self._config.per_video}.get(self._config.kind, 1)
        swaps = self._swaps.of(video) if self._swaps is not None else []
        names = [self._name(video, k) for k in range(len(swaps) if self._swaps is not None else count)]
        if not names:
            return [], "no pair names it"
        missing = [k for k, name in enumerate(names) if name not in done]
        if not missing:
            return [], ""
        cut, reason = self._cut_out(video)
        if cut is None:
            return [], reason
        frames, masks, first, rate = cut
        rows = []
        for k in missing:
            row = {
                "path": names[k],
                "class": self._classes[video.label],
                "source": video.path,
                "first_frame": first,
                "frames": len(frames),
                "mask_coverage": f"{masks.mean():.4f}",
            }
            if swaps:
                composite, about = self._swapped(frames, masks, swaps[k])
                if composite is None:
                    return rows, about["reason"]
            else:
                composite, about = self._composite(video, frames, masks, k)
            path = self._config.out / "videos" / names[k]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_frames(path, composite, rate, self._config.quality)
            rows.append(row | about)
        return rows, ""

    def _composite(self, video: SourceVideo, frames: np.ndarray, masks: np.ndarray, k: int) -> tuple[np.ndarray, dict]:
        """The k-th composite of a video, and what the manifest says of it."""
        if self._config.kind == "background_only":
            return painted_out(frames, masks), {"background": "its own"}
        if self._config.kind == "human_only":
            return over_background(frames, masks, np.array(GREY, np.uint8)), {"background": "grey"}
        rng = _stream(self._config.seed, video.path, k)
        background, name = self._backgrounds.draw(rng, *frames.shape[1:3])
        about = {"background": name}
        if self._config.kind == "conflfg":
            background, still = self._with_still_actor(video, background, masks, rng)
            about |= still
        return over_background(frames, masks, background), about

    def _swapped(self, frames: np.ndarray, masks: np.ndarray, swap: Swap) -> tuple[np.ndarray | None, dict]:
        """The human before the first of the backgrounds that can be used, or None and why."""
        reason = ""
        for other in swap.candidates:
            cut, reason = self._cut_out(other)
            if cut is not None:
                background = like(painted_out(cut[0], cut[1]), frames.shape)
                about = {"background": other.path, "background_class": self._classes[other.label], "kind": swap.kind}
                return over_background(frames, masks, background), about
        return None, {"reason": f"no background of kind {swap.kind} for it: {reason}"}

    def _name(self, video: SourceVideo, k: int) -> str:
        return f"{self._classes[video.label]}/{Path(video.path).stem}__{k}.mp4"

    def _cut_out(self, video: SourceVideo):
        """(frames, masks, first frame, rate), trimmed where --trim says so, or None and why."""
        if video.start is not None or video.end is not None:
            end = "its end" if video.end is None else f"{video.end:g} s"
            return None, f"the list names the part from {video.start or 0:g} s to {end}; cut it out first"
        try:
            frames, rate = read_frames(self._root / video.path, self._config.sandbox)
            masks = self._masks(str(Path(video.path).with_suffix("")), frames.shape[:3])
        except InputError as error:  # one broken file must not end the work on all others
            return None, str(error)
        if masks is None:
            return None, "no masks"
        masks = smoothed(masks, self._config.smooth)
        usable = masks.mean((1, 2)) >= max(self._config.min_coverage, 1e-9)
        if not usable.any() or usable.mean() < self._config.min_usable:
            return None, f"{usable.mean():.0%} of its frames have a mask that covers enough"
        kept = self._config.kind in ("scuba", "conflfg") and self._config.mask_from != "boxes"
        trim = self._config.trim == "on" or (self._config.trim == "auto" and not kept)
        seen = np.flatnonzero(masks.any((1, 2))) if trim else np.arange(len(masks))
        part = slice(seen[0], seen[-1] + 1)
        return (frames[: len(masks)][part], masks[part], int(seen[0]), rate), ""

    def _with_still_actor(self, video: SourceVideo, background: np.ndarray, masks: np.ndarray, rng):
        others = [other for other in self._videos if other.label != video.label]
        for place in rng.permutation(len(others))[:_TRIES]:
            other = others[place]
            cut, _ = self._cut_out(other)
            if cut is None:
                continue
            frames, found, first, _ = cut
            usable = np.flatnonzero(found.any((1, 2)))
            at = int(usable[rng.integers(len(usable))])
            background, (top, left) = with_still_actor(background, masks, frames[at], found[at])
            return background, {
                "static_source": other.path,
                "static_frame": first + at,
                "static_class": self._classes[other.label],
                "static_top": top,
                "static_left": left,
            }
        raise InputError(f"{video.path}: no video of another class has masks for a still actor; add masks")


def smoothed(masks: np.ndarray, reach: int) -> np.ndarray:
    """bool (T,H,W): set where the mask is set up to ``reach`` frames before or after."""
    out = masks.copy()
    for shift in range(1, reach + 1):
        out[shift:] |= masks[:-shift]
        out[:-shift] |= masks[shift:]
    return out


def _stream(seed: int, name: str, k: int) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(blake2b(f"{seed}/{name}/{k}".encode(), digest_size=16).digest()))


def _same_settings(config: OodConfig, started: bool) -> None:
    """Remember what the composites are made with; other settings are refused once there is one."""
    free = ("out", "workers", "like")
    settings = {k: str(v) for k, v in asdict(config).items() if k not in free}
    path = config.out / "settings.json"
    if path.exists():
        saved = json.loads(path.read_text())
        # an option that is younger than the folder was not there to be chosen
        changed = [name for name in settings if saved.get(name, settings[name]) != settings[name]]
        if changed and started:
            raise InputError(
                f"{config.out}: holds composites made with {changed[0]} {saved.get(changed[0])}, not "
                f"{settings[changed[0]]}; choose another folder"
            )
    elif any(config.out.iterdir()):
        raise InputError(f"{config.out}: not empty and not made by this command; choose an empty folder")
    write_atomic(path, json.dumps(settings, indent=1).encode())


def _finished_rows(out: Path) -> dict[str, dict]:
    """Composites that are on the disk, with their row, by path; a row is written after its video."""
    rows: dict[str, dict] = {}
    for name, header in (("manifest.csv", None), ("manifest.partial", COLUMNS)):
        if (out / name).exists():
            with open(out / name, newline="") as file:
                for row in csv.DictReader(file, fieldnames=header):
                    if row["path"] and row.get("mask_coverage") and (out / "videos" / row["path"]).exists():
                        rows[row["path"]] = {column: row.get(column) or "" for column in COLUMNS}
    return rows


def _write_lists(config: OodConfig, rows: list[dict], left_out: dict[str, str]) -> None:
    _write_csv(config.out / "manifest.csv", COLUMNS, rows)
    (config.out / "manifest.partial").unlink(missing_ok=True)
    reasons = [{"source": csv_cell(source), "reason": csv_cell(left_out[source])} for source in sorted(left_out)]
    _write_csv(config.out / "left_out.csv", ("source", "reason"), reasons)
    if config.kind == "conflfg":
        # the keys that `unstill convert OUT/videos` will give
        keys = assign_keys([SourceVideo(row["path"], 0) for row in rows])
        truth = [{"key": key, "static_actor": row["static_class"]} for key, row in zip(keys, rows, strict=True)]
        _write_csv(config.out / "truth.csv", ("key", "static_actor"), truth)
    if config.kind == "swap":
        keys = assign_keys([SourceVideo(row["path"], 0) for row in rows])
        truth = [
            {"key": key, "background": row["background_class"], "kind": row["kind"]}
            for key, row in zip(keys, rows, strict=True)
        ]
        _write_csv(config.out / "truth.csv", ("key", "background", "kind"), truth)
    write_preview(config.out / "preview.png", [config.out / "videos" / row["path"] for row in rows], config.sandbox)


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())
