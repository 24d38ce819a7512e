"""``unstill scene-bias``, ``scene-labels``, ``still-bank``, ``hat``: options in, a line out; returns the exit code."""

from ..diagnostics.config import HatConfig, SceneBiasConfig, SceneLabelConfig, StillBankConfig
from ..diagnostics.hat_command import measure_hat
from ..diagnostics.scene_bias import measure_scene_bias, write_scene_labels
from ..diagnostics.still_bank import build_still_bank


def scene_bias(options: SceneBiasConfig) -> int:
    """``unstill scene-bias``."""
    found = measure_scene_bias(options)
    print(
        f"B_scene = ln({100 * found.accuracy:.1f} % / {100 * found.chance:.1f} %) = {found.bias:.2f}: accuracy of a "
        "linear classifier on features of still frames, over guessing"
    )
    return 0


def scene_labels(options: SceneLabelConfig) -> int:
    """``unstill scene-labels``."""
    path = write_scene_labels(options)
    print(f"{path}: for SDN, --method.scenes {path}")
    return 0


def still_bank(options: StillBankConfig) -> int:
    """``unstill still-bank``."""
    path = build_still_bank(options)
    print(f"{path}: for StillMix, --augmentation.bank {path}")
    return 0


def hat(options: HatConfig) -> int:
    """``unstill hat``."""
    titles = {"bor": "BOR (lower)", "hor": "HOR (higher)", "shacc": "SHAcc (higher)", "sberr": "SBErr (lower)"}
    for model, values in measure_hat(options).items():
        print(f"{model}: " + ", ".join(f"{titles[name]} {value:.1f} %" for name, value in values.items()))
    return 0
