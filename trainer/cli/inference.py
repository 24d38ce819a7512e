"""``unstill export`` and ``unstill predict``: what they print; the exit code is returned."""

from ...pipeline.errors import InputError
from ..inference.config import ExportConfig, PredictConfig
from ..inference.export import export as export_model
from ..inference.predict import predict as predict_videos


def export(config: ExportConfig) -> int:
    """``unstill export``."""
    exported = export_model(config)
    for name, difference in exported.difference.items():
        print(f"{name}: largest difference of a logit to the trained model {difference:.1e} of the largest")
    if exported.address is not None:
        print(f"uploaded: {exported.address}")
    print(f"written: {exported.folder}; next: unstill predict VIDEO... --model {exported.folder}")
    return 0


def predict(config: PredictConfig) -> int:
    """``unstill predict``; 1 when a video could not be read.

    Raises:
        InputError: no video is given, or the model or an option cannot be used.
    """
    if not config.videos:
        raise InputError("no video given; expected unstill predict VIDEO [VIDEO ...] --model MODEL")
    found = predict_videos(config)
    for prediction in found:
        print(prediction)
    return 1 if any(prediction.error for prediction in found) else 0
