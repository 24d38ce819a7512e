"""Methods and augmentations in whole runs: they compose, resume bit for bit, and their parameters are saved."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from fault_scenarios import digest
from synthetic_run import CLASSES, SAMPLES, loader_of, run_config

from unstill.trainer import recipes
from unstill.trainer.augmentations import Fame, Mixup, StillMix, VideoMix
from unstill.trainer.batch import distribution
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.config import from_dict, to_dict
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline, Sdn, TwoStreams
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path, named_data):
    rows = [f"v{n:02},scene {n % 3}" for n in range(SAMPLES)]
    (tmp_path / "scenes.csv").write_text("\n".join(["key,scene", *rows]))
    return tmp_path


def settings(name, folder):
    small = {"model": dataclasses.replace(run_config(folder).model, name="motion_cnn")}  # its head is known
    clip = {"clip": dataclasses.replace(run_config(folder).clip, frames=4, size=12)}
    return {
        "albar+stillmix": {"augmentation": StillMix(prob=0.75)},
        "albar+mixup": {
            "augmentation": Mixup(prob=0.75),
            "step": StepConfig(precision="fp64", compile="off", ema=0.9),
        },
        "albar+videomix+parts": {
            "augmentation": VideoMix(static_from="augmented"),
            "step": StepConfig(precision="fp32", compile="off", accumulate=2, ema=0.9),
        },
        "baseline+fame": {"method": Baseline(), "augmentation": Fame()},
        "sdn+fame": {"method": Sdn(scenes=folder / "scenes.csv", hidden=8, layers=1), "augmentation": Fame()} | small,
        "two streams": {"method": TwoStreams(scenes=folder / "scenes.csv", alpha=0.5)} | small,
    }[name] | clip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["albar+stillmix", "albar+mixup", "albar+videomix+parts", "baseline+fame", "sdn+fame", "two streams"]
)
def test_a_stopped_run_ends_with_the_same_bits(folder, name):
    changes = settings(name, folder)
    train(run_config(folder, out=folder / "whole", **changes), make_loader=loader_of())
    with pytest.raises(Preempted):
        train(run_config(folder, stop_after=4, **changes), make_loader=loader_of())
    result = train(run_config(folder, **changes), make_loader=loader_of())
    assert digest(folder / "run") == digest(folder / "whole")
    saved = torch.load(result.checkpoint / "state.pt", weights_only=True)
    assert bool(saved["extra"]) == (name in ("sdn+fame", "two streams"))
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_another_seed_augments_differently(folder):
    runs = []
    for augmentation in (None, StillMix(prob=1.0)):
        train(run_config(folder, out=folder / str(augmentation), augmentation=augmentation), make_loader=loader_of())
        runs.append(digest(folder / str(augmentation)))
    assert runs[0] != runs[1]


def test_albar_takes_the_static_clips_own_labels():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3 * 2 * 2 * 2, CLASSES, dtype=torch.float64)

        def forward(self, x):
            return self.layer(x.flatten(1))

    torch.manual_seed(0)
    net, clips = Linear(), torch.randn(4, 3, 2, 2, 2, dtype=torch.float64)
    own, mixed = torch.tensor([0, 1, 2, 3]), torch.softmax(torch.randn(4, CLASSES, dtype=torch.float64), 1)
    method = Albar(w_adv=0.5, w_ent=2.0, w_gp=0)
    loss, terms = LossModule(net, method)(clips, clips.flip(0), mixed, False, {"static_target": own})
    z, zs = net(clips), net(clips.flip(0))
    ce, still = (torch.nn.functional.cross_entropy(*pair) for pair in ((z, mixed), (zs, own)))
    p = zs.softmax(1)
    torch.testing.assert_close(loss, ce - 0.5 * still + 2 * (p * p.log()).sum(1).mean())
    torch.testing.assert_close(terms["static_ce"], still.detach())
    assert distribution(own, CLASSES).shape == mixed.shape


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_recipe_survives_its_config_file(name):
    config = recipes.RECIPES[name]()
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
