"""What a network sees of its clips: by hand, over a run, after a resume, in evaluation and in exports."""

import copy
from dataclasses import replace

import pytest
import synthetic_run
import torch
from safetensors.torch import load_file
from synthetic_run import loader_of, make_dataset, run_config

from unstill.pipeline.errors import InputError
from unstill.trainer.augmentations import Recast
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.inference.classifier import Facts, load_classifier
from unstill.trainer.inference.config import ExportConfig
from unstill.trainer.inference.export import export
from unstill.trainer.loss_module import LossModule, allow_inner_gradients
from unstill.trainer.methods import Albar, Baseline
from unstill.trainer.models.clip_view import add_view, set_progress
from unstill.trainer.models.config import ClipViewConfig, ModelConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

MOVING, FADE_IN = ClipViewConfig(sees="moving_part"), ClipViewConfig(sees="fade_in", fade=(0.2, 0.6))
CLIPS = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
MEAN = CLIPS.mean(2, keepdim=True)


def viewed(view):
    torch.manual_seed(0)
    bare = synthetic_run.layer_norm_net(4)
    model = copy.deepcopy(bare)
    add_view(model, view)
    return bare, model


def test_the_moving_part_is_the_clip_minus_its_mean_always():
    bare, model = viewed(MOVING)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(CLIPS), bare(CLIPS - MEAN))
    assert torch.equal(model(MEAN.expand_as(CLIPS)), model(torch.zeros_like(CLIPS)))
    assert list(model.state_dict()) == list(bare.state_dict())  # weights of one view fit any other


@pytest.mark.parametrize(("done", "share"), [(0, 0), (0.1, 0), (0.2, 0), (0.3, 0.25), (0.5, 0.75), (0.6, 1), (1, 1)])
def test_what_stays_comes_back_evenly_and_is_all_there_in_evaluation(done, share):
    bare, model = viewed(FADE_IN)
    set_progress(model, done)
    torch.testing.assert_close(model(CLIPS), bare(CLIPS - (1 - share) * MEAN), rtol=1e-4, atol=1e-6)
    assert torch.equal(model.eval()(CLIPS), bare(CLIPS))


def test_a_copy_has_a_view_of_its_own():
    _, model = viewed(FADE_IN)
    other = copy.deepcopy(model)
    set_progress(other, 1.0)
    assert model.clip_view.share == 0 and other.clip_view.share == 1


def test_compiled_once_for_all_of_a_run():
    _, model = viewed(FADE_IN)
    model = model.double()
    module, method, graphs = LossModule(model, Baseline()), Baseline(), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    allow_inner_gradients()
    module.compile(fullgraph=True, dynamic=False, backend=count)
    target = torch.tensor([0, 1])
    for done in (0.0, 0.3, 0.9):
        set_progress(model, done)
        loss, _ = module(CLIPS.double(), None, target, False)
        expected, _ = LossModule(model, method)(CLIPS.double(), None, target, False)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    assert len(graphs) == 1


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path / "data")
    return tmp_path


def recast_config(folder, view=FADE_IN, **changes):
    model = ModelConfig(name="synthetic_run:dropout_net", view=view)
    return run_config(folder, model=model, augmentation=Recast(background="other"), **changes)


def weights(run):
    return load_file(pointed(run / "checkpoints") / "model.safetensors")


@pytest.mark.slow
def test_a_resume_within_the_schedule_ends_with_the_same_bits(folder):
    train(recast_config(folder, out=folder / "once"), make_loader=loader_of())
    for stop in (3, 5, None):  # of 10 steps; the mean comes back from step 2 to 6
        try:
            train(recast_config(folder, out=folder / "stopped", stop_after=stop), make_loader=loader_of())
        except Preempted:
            continue
    once, stopped = weights(folder / "once"), weights(folder / "stopped")
    assert all(torch.equal(once[name], stopped[name]) for name in once)
    other = replace(FADE_IN, fade=(0.2, 0.7))
    train(recast_config(folder, view=other, out=folder / "other"), make_loader=loader_of())
    assert not torch.equal(once["head.weight"], weights(folder / "other")["head.weight"])


def motion_cnn(folder, view):
    model = ModelConfig(name="motion_cnn", view=view)
    config = run_config(folder, out=folder / view.sees, model=model, method=Albar(w_gp=0.0), augmentation=Recast())
    with pytest.raises(Preempted):
        train(replace(config, stop_after=3), make_loader=loader_of())  # in the middle of the schedule
    return config.out


@pytest.mark.parametrize("view", [MOVING, FADE_IN], ids=lambda view: view.sees)
def test_evaluation_and_export_see_the_final_form(folder, view):
    run = motion_cnn(folder, view)
    model, config, _ = load_model(run)
    plain = copy.deepcopy(model)
    plain._forward_pre_hooks.clear()
    size = (2, 3, config.clip.frames, config.clip.size, config.clip.size)
    clips = torch.randn(size, generator=torch.Generator().manual_seed(1))
    expected = plain(clips) if view == FADE_IN else plain(clips - clips.mean(2, keepdim=True))
    torch.testing.assert_close(model(clips), expected)
    found = export(ExportConfig(run=run, out=folder / "exported", formats=("torch_export",)))
    assert found.difference["torch_export"] < 1e-5
    classifier, facts = load_classifier(found.folder)
    assert facts.view == view and Facts.load(found.folder) == facts
    torch.testing.assert_close(classifier.model(clips), expected)


def test_shares_of_a_run_are_checked():
    with pytest.raises(InputError, match=r"model\.view\.fade is 0\.8 0\.3"):
        ClipViewConfig(fade=(0.8, 0.3))
