"""Files that other repositories read: annotations and facts for ActionFormer, TriDet and OpenTAD, and detections.

annotations.json       ActivityNet's JSON with all that these read: subset, duration, fps, frame, label, label_id
category_idx.txt       class names, one a line, in the order of label_id (OpenTAD's class map)
dataset.json           the fields of ActionFormer's and TriDet's yaml, and OpenTAD's names for them
detections_seedN.json  ActivityNet's submission, {"results": {VIDEO: [{"label", "score", "segment"}]}}; OpenTAD reads it

Annotations go by the names of the feature files, which these codes look for; detections by the videos' own names. The
features are (T,D) arrays, one a video, in the folder that was given; row k is the window of num_frames frames that
begins at frame k feat_stride, in all three codes.
"""

from collections.abc import Sequence
from typing import Any

from ..feature_folder import FeatureFolder
from ..temporal_map import Segments
from .videos import LocatedVideo


def annotations_json(videos: Sequence[LocatedVideo], classes: Sequence[str]) -> dict[str, Any]:
    """The annotations of the videos that are used, as they are used: by the names of their features.

    Labels outside ``classes``, which no training video has, are numbered behind them.
    """
    found = {action.label for video in videos for action in video.annotated.actions}
    number = {name: k for k, name in enumerate([*classes, *sorted(found - set(classes))])}
    database = {}
    for video in videos:
        database[video.key] = {
            "subset": video.annotated.subset,
            "duration": video.length,
            "fps": video.fps,
            "frame": video.frames,
            "annotations": [
                {
                    "label": action.label,
                    "label_id": number[action.label],
                    "segment": [action.start, action.end],
                    "segment(frames)": [action.start * video.fps, action.end * video.fps],
                }
                for action in video.annotated.actions
            ],
        }
    return {"version": "unstill", "database": database}


def dataset_json(
    folder: FeatureFolder,
    videos: Sequence[LocatedVideo],
    classes: Sequence[str],
    *,
    width: int,
    train_subset: str,
    test_subset: str,
) -> dict[str, Any]:
    """What their configuration has to say of the features."""
    rates = {video.fps for video in videos}
    return {
        "actionformer, tridet": {
            "json_file": "annotations.json",
            "feat_folder": str(folder.path.resolve()),
            "file_prefix": None,
            "file_ext": ".npy",
            "feat_stride": folder.stride,
            "num_frames": folder.window,
            "default_fps": rates.pop() if len(rates) == 1 else None,  # None: each video's own, from the annotations
            "input_dim": width,
            "num_classes": len(classes),
            "train_split": [train_subset.lower()],
            "val_split": [test_subset.lower()],
        },
        "opentad": {
            "ann_file": "annotations.json",
            "class_map": "category_idx.txt",
            "data_path": str(folder.path.resolve()),
            "feature_stride": folder.stride,
            "sample_stride": 1,
            "offset_frames": folder.window // 2,
            "train subset_name": train_subset.lower(),
            "test subset_name": test_subset.lower(),
        },
    }


def detections_json(found: Segments) -> dict[str, Any]:
    """Detections as ActivityNet's evaluation reads them."""
    assert found.score is not None
    results: dict[str, list[dict[str, Any]]] = {}
    for video, label, start, end, score in zip(
        found.video, found.label, found.start.tolist(), found.end.tolist(), found.score.tolist(), strict=True
    ):
        results.setdefault(video, []).append({"label": label, "score": score, "segment": [start, end]})
    return {"version": "unstill", "results": results, "external_data": {}}
