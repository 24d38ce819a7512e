"""``unstill diagnose`` on real shards, with networks whose answer is known by construction."""

import json
import shutil

import numpy as np
import pytest
import torch
from known_networks import Flow
from torch import nn

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import CLASSES, MotionsConfig
from unstill.trainer.diagnostics import evidence, information_command, look_command, scene_bias, static_dynamic_command
from unstill.trainer.diagnostics.config import InformationConfig, LookConfig, SceneBiasConfig, StaticDynamicConfig
from unstill.trainer.diagnostics.evidence import measure_evidence
from unstill.trainer.diagnostics.information_command import measure_information
from unstill.trainer.diagnostics.look_command import diagnose_look
from unstill.trainer.diagnostics.presentation import Bar, Chart, Diagnosis, Table, html, picture, show, write
from unstill.trainer.diagnostics.scene_bias import measure_scene_bias
from unstill.trainer.diagnostics.static_dynamic_command import measure_static_dynamic
from unstill.trainer.evaluation.config import EvaluateOptions
from unstill.trainer.evaluation.subject import Subject

CPU = EvaluateOptions(device="cpu", batch_size=32)
SPLITS = ("unbiased", "iid", "anti")


class Colours(nn.Module):
    """The head sees colours of all frames and how they vary in the picture: the scene, and no order."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(9, 8)

    def forward(self, x):
        mean = x.mean(2)
        texture = [mean.diff(dim=axis).abs().mean((2, 3)) for axis in (2, 3)]
        return self.head(torch.cat([mean.mean((2, 3)), *texture], 1))


class Movement(nn.Module):
    """The head sees how much the picture changes from frame to frame; a still clip is nothing to it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 8)

    def forward(self, x):
        change = x.diff(dim=2).abs().mean((1, 3, 4))
        return self.head(torch.stack([change[:, :3].mean(1), change[:, 4:].mean(1)], 1))


class Red(nn.Module):
    """Evidence for every class is the red of the picture's left half."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv3d(3, 1, 1, bias=False), nn.Linear(1, 8, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1))
            self.head.weight.fill_(1)

    def forward(self, x):
        left = torch.zeros_like(x[:, :1])
        left[..., : x.shape[-1] // 2] = 1
        return self.head(self.conv(x * left).mean((2, 3, 4)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("diagnose")
    videos = MotionsConfig(out=root / "videos", test=96, splits=SPLITS, size=32, workers=1, noise=0)
    for split, folder in write_motions(videos).items():
        convert(ConvertConfig(source=folder, out=root / split, codec="vp9", short_side=32, workers=1))
    return root


@pytest.fixture
def subjects(monkeypatch):
    """Makes ``load_subject`` give a network by the name of its folder."""
    torch.manual_seed(0)
    clip = ClipConfig(frames=8, stride=1, size=32)
    made = {"colours": Colours(), "movement": Movement(), "flow": Flow(), "red": Red()}
    found = {n: Subject(n, m.eval(), CLASSES, clip, (0.0,) * 3, (1.0,) * 3) for n, m in made.items()}
    for module in (information_command, static_dynamic_command, evidence, scene_bias):
        monkeypatch.setattr(module, "load_subject", lambda run, **_: found[run.name])
    for module in (information_command, static_dynamic_command, look_command, scene_bias):
        monkeypatch.setattr(module, "describe_runs", lambda runs: {})
    return found


@pytest.mark.slow
def test_information(data, subjects):
    """The scene is in the colours, of moving and of still clips; movement knows neither, and is gone from a still."""
    config = InformationConfig(
        runs=(data / "colours", data / "movement"),
        data=data / "unbiased",
        truth=data / "videos/truth/unbiased.csv",
        columns=("scene",),
        layers=("penultimate",),
        run=CPU,
    )
    found = measure_information(config)
    shares = {place: value.share for place, value in found.items()}
    for kind in ("filmed", "still"):
        assert shares["colours", kind, "penultimate", "scene | class"] > 0.35
        assert abs(shares["movement", kind, "penultimate", "scene | class"]) < 0.15
        assert abs(shares["colours", kind, "penultimate", "class"]) < 0.1
    assert shares["movement", "filmed", "penultimate", "class"] > 0.1
    assert abs(shares["movement", "still", "penultimate", "class"]) < 0.02
    with pytest.raises(InputError, match="no column 'sceen'; it has class, scene, actor"):
        measure_information(InformationConfig(**vars(config) | {"columns": ("sceen",)}))
    with pytest.raises(InputError, match="not readable"):
        measure_information(InformationConfig(**vars(config) | {"truth": data / "videos/truth/none.csv"}))


@pytest.mark.slow
def test_static_dynamic(data, subjects):
    runs = (data / "colours", data / "flow")
    config = StaticDynamicConfig(runs=runs, data=data / "iid", partner=data / "anti", run=CPU)
    found = {name: layers["penultimate"] for name, layers in measure_static_dynamic(config).items()}
    assert found["colours"].static == pytest.approx(1, abs=1e-4) and found["colours"].dynamic < 0.6
    assert found["flow"].dynamic > 0.7 and abs(found["flow"].static) < 0.3
    restyled = measure_static_dynamic(StaticDynamicConfig(runs=runs, data=data / "iid", run=CPU))
    assert restyled["colours"]["penultimate"].static == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_look(data, subjects):
    config = LookConfig(
        runs=(data / "red",),
        data=data / "unbiased",
        masks=data / "videos/masks/unbiased",
        out=data / "out",
        keys=("left_000000", "up_000002"),
        steps=4,
        measured=16,
        run=CPU,
    )
    found = measure_evidence(config)
    assert [shown.key for shown in found.shown] == ["left_000000", "up_000002"] and found.gap < 1e-5
    for shown in found.shown:
        red = shown.frames[..., 0].astype(np.float64)
        red[..., 16:] = 0
        heat = shown.evidence["red"].heat["integrated_gradients"]
        np.testing.assert_allclose(heat / heat.sum(), red / red.sum(), rtol=1e-3, atol=1e-9)
        energy = (heat * shown.mask).sum() / heat.sum()
        assert 0 <= energy <= 1 and shown.mask.max() == 1
    assert found.area is not None and found.area.samples == 16 and 3 < found.area.value < 30
    # masks lie where the actor is: what the mask holds is more colourful than what it does not
    frames, mask = found.shown[0].frames.astype(float), found.shown[0].mask
    spread = frames.max(-1) - frames.min(-1)
    assert spread[mask > 0.9].mean() > 2 * spread[mask < 0.1].mean()
    diagnosis = diagnose_look(config)
    paths = write(diagnosis, config.out)
    assert [path.name for path in paths] == ["look.json", "look.html", "look.png"]
    assert paths[2].read_bytes()[:4] == b"\x89PNG" and "left_000000" in paths[1].read_text()
    with pytest.raises(InputError, match="no key 'no_one'"):
        measure_evidence(LookConfig(**vars(config) | {"keys": ("no_one",)}))
    with pytest.raises(InputError, match="no masks of"):
        measure_evidence(LookConfig(**vars(config) | {"masks": data / "videos/truth"}))


def test_scene_bias_of_a_run_sees_one_random_frame(data, subjects):
    """A network that reads size alone must not learn zooms from the time of the frame: B_scene stays near 0."""
    config = SceneBiasConfig(train=data / "unbiased", test=data / "anti", run=data / "movement", device="cpu")
    assert measure_scene_bias(config).accuracy < 0.3
    keys = []
    model = subjects["colours"].model
    model.register_forward_pre_hook(lambda _m, inputs: keys.append(inputs[0].diff(dim=2).abs().max().item()))
    measure_scene_bias(SceneBiasConfig(train=data / "unbiased", test=data / "anti", run=data / "colours", device="cpu"))
    assert max(keys) == 0  # nothing moved


def test_files_and_pages(tmp_path, capsys):
    diagnosis = Diagnosis(
        name="test",
        title="What is asked?",
        shows=("<b>not bold</b>",),
        content={"a": float("nan"), "b": np.float64(2), "c": (1, np.int64(3))},
        charts=[
            Chart("Bars", [Bar("g", "m", 0.5, 0.4, 0.6), Bar("g", "n", float("nan"))], 1.0, reference=(0.2, "even"))
        ],
        tables=[Table("Numbers", ("x", "y"), [("a", "1")], "A note.")],
        facts={"seed": "0"},
    )
    write(diagnosis, tmp_path / "alone.json")
    assert json.loads((tmp_path / "alone.json").read_text())["results"] == {"a": None, "b": 2, "c": [1, 3]}
    assert [path.name for path in tmp_path.iterdir()] == ["alone.json"]
    page = html(diagnosis)
    assert "&lt;b&gt;" in page and "<script" not in page and "http" not in page and "A note." in page
    assert picture(diagnosis)[:4] == b"\x89PNG"
    show(diagnosis)
    assert "A note." in capsys.readouterr().out
    shutil.rmtree(tmp_path)
