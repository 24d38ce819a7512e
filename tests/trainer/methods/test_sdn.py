"""SDN: the sign of the reversed gradient, the entropy on painted clips, scenes by key, two stages."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from synthetic_run import layer_norm_net, loader_of, run_config

from unstill.pipeline.errors import InputError
from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.pipeline.shards.index import SampleIndex
from unstill.trainer.build import build as build_run
from unstill.trainer.checkpoints.checkpoint import find_checkpoint, start_from
from unstill.trainer.distributed import Ranks
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Sdn
from unstill.trainer.methods.scene_labels import scene_table
from unstill.trainer.methods.sdn import people_painted_over
from unstill.trainer.models.registry import build_model
from unstill.trainer.train import train

B, C, K = 4, 4, 3


@pytest.fixture
def parts():
    torch.manual_seed(0)
    net = layer_norm_net(C).double()
    g = torch.Generator().manual_seed(1)
    motion = torch.randn(B, 3, 4, 8, 8, generator=g, dtype=torch.float64)
    scene = torch.softmax(torch.randn(B, K, generator=g, dtype=torch.float64), 1)
    people = torch.zeros(B, 1, 4, 8, 8, dtype=torch.uint8)
    people[:3, :, :, 2:6, 2:6] = 1  # the last clip shows nobody
    return net, motion, {"scene": scene, "people": people}, torch.tensor([0, 1, 2, 3])


def build(net, method):
    torch.manual_seed(2)
    method_module = method.module(net, "head", {"scene": torch.zeros(1, K)}).double()
    return LossModule(net, method, head="head", method_module=method_module), method_module


def test_clips_with_too_few_people_are_not_painted_over(parts):
    """The released set of painted videos keeps those with people in 70 % of the frames; here frames of the clip."""
    net, motion, per_sample, target = parts
    people = torch.zeros(B, 1, 10, 8, 8, dtype=torch.uint8)
    people[0, :, :7, 2:6, 2:6] = 1
    people[1, :, :6, 2:6, 2:6] = 1
    motion = motion.repeat(1, 1, 3, 1, 1)[:, :, :10]
    module, _ = build(net, Sdn(w_mask=1.0, hidden=8, layers=1))
    _, terms = module(motion, None, target, False, per_sample | {"people": people})
    with torch.no_grad():
        log_p = F.log_softmax(net(people_painted_over(motion, people))[0], 0)
    assert terms["masked_entropy"].item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), rel=1e-9)


def test_reversed_gradient_by_finite_differences(parts):
    # of the features' parameters: d(CE)/dw - alpha * d(scene CE)/dw; of the scene classifier's: + d(scene CE)/dw
    net, motion, per_sample, target = parts
    alpha = 0.7
    module, method_module = build(net, Sdn(alpha=alpha, hidden=8, layers=1))
    loss, terms = module(motion, None, target, False, per_sample)
    loss.backward()

    def values():
        with torch.no_grad():
            _, found = module(motion, None, target, False, per_sample)
        return found["ce"].item(), found["scene_ce"].item()

    def slope(p, eps=1e-6):
        with torch.no_grad():
            p.view(-1)[0] += eps
            high = values()
            p.view(-1)[0] -= 2 * eps
            low = values()
            p.view(-1)[0] += eps
        return [(h - lo) / (2 * eps) for h, lo in zip(high, low, strict=True)]

    ce, scene = slope(net.conv1.weight)
    assert abs(scene) > 1e-5
    assert net.conv1.weight.grad.view(-1)[0].item() == pytest.approx(ce - alpha * scene, rel=1e-4, abs=1e-8)
    ce, scene = slope(method_module["head"][0].weight)
    assert ce == 0 and method_module["head"][0].weight.grad.view(-1)[0].item() == pytest.approx(
        scene, rel=1e-4, abs=1e-8
    )
    torch.testing.assert_close(loss.detach(), terms["ce"] + terms["scene_ce"])


def test_entropy_of_painted_clips_counts_only_where_people_are(parts):
    net, motion, per_sample, target = parts
    module, method_module = build(net, Sdn(alpha=0.0, w_mask=0.5, hidden=8, layers=0))
    loss, terms = module(motion, None, target, False, per_sample)
    p = net(people_painted_over(motion, per_sample["people"])[:3]).softmax(1)
    negent = (p * p.log()).sum(1).mean()
    scene = -(per_sample["scene"] * F.log_softmax(method_module["head"](features(net, motion)), 1)).sum(1).mean()
    torch.testing.assert_close(loss, F.cross_entropy(net(motion), target) + 0.5 * negent + scene)
    torch.testing.assert_close(terms["masked_entropy"], -negent.detach())


def features(net, clips):
    seen = []
    hook = net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(clips)
    hook.remove()
    return seen[0]


def test_painting_over():
    clip = torch.arange(8.0).view(1, 1, 2, 2, 2).repeat(1, 3, 1, 1, 1)
    people = torch.zeros(1, 1, 2, 2, 2)
    people[0, 0, 1, 0, 0] = 1
    out = people_painted_over(clip, people)
    assert out[0, 0].flatten().tolist() == [0, 1, 2, 3, 5.5, 5, 6, 7]


@pytest.mark.slow
def test_compiled_equals_eager(parts):
    net, motion, per_sample, target = parts
    gradients = []
    for backend in (None, "aot_eager"):
        net.zero_grad()
        module, _ = build(net, Sdn(alpha=0.5, w_mask=0.5, hidden=8, layers=1))
        if backend:
            torch._dynamo.reset()
            module.compile(fullgraph=True, dynamic=False, backend=backend)
        module(motion, None, target, False, per_sample)[0].backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_scenes_are_joined_by_key(tmp_path, named_data):
    data = named_data
    keys = SampleIndex.load(data).keys()
    order = np.random.default_rng(0).permutation(len(keys))
    soft = np.random.default_rng(1).dirichlet(np.ones(K), len(keys)).astype(np.float32)
    np.savez(tmp_path / "scenes.npz", keys=np.array(keys)[order], probabilities=soft[order])
    np.testing.assert_allclose(scene_table(tmp_path / "scenes.npz", data), soft, atol=1e-6)

    rows = [f"{key},{'abc'[n % 3]}" for n, key in enumerate(keys)]
    (tmp_path / "scenes.csv").write_text("\n".join(["key,scene", *rows[::-1]]))
    assert scene_table(tmp_path / "scenes.csv", data).argmax(1).tolist() == [n % 3 for n in range(len(keys))]

    (tmp_path / "short.csv").write_text("\n".join(["key,scene", *rows[:-1]]))
    with pytest.raises(InputError, match=f"no scene for '{keys[-1]}'"):
        scene_table(tmp_path / "short.csv", data)
    (tmp_path / "double.csv").write_text("\n".join(["key,scene", *rows, rows[0]]))
    with pytest.raises(InputError, match="different keys"):
        scene_table(tmp_path / "double.csv", data)
    np.savez(tmp_path / "wrong.npz", keys=np.array(keys), probabilities=soft * 2)
    with pytest.raises(InputError, match="no distribution"):
        scene_table(tmp_path / "wrong.npz", data)
    with pytest.raises(InputError, match=r"--method\.scenes"):
        Sdn().tables(data)


def test_two_stages(tmp_path, named_data, one_thread):
    keys = SampleIndex.load(named_data).keys()
    (tmp_path / "scenes.csv").write_text("\n".join(["key,scene", *(f"{k},{n % 3}" for n, k in enumerate(keys))]))
    first = run_config(tmp_path, out=tmp_path / "first")
    first = dataclasses.replace(
        first,
        model=dataclasses.replace(first.model, name="motion_cnn"),
        method=Sdn(scenes=tmp_path / "scenes.csv", hidden=8, layers=1),
        optimiser=dataclasses.replace(first.optimiser, head_first=0.8),  # 8 of 10 steps
        checkpoint=dataclasses.replace(first.checkpoint, every=1, keep=100),
        step=dataclasses.replace(first.step, ema=0.0),
    )
    train(first, make_loader=loader_of())
    weights = [load_file(path / "model.safetensors") for path in sorted((first.out / "checkpoints").glob("step*"))]
    body = "features.0.weight"
    assert torch.equal(weights[0][body], weights[7][body]) and not torch.equal(weights[7][body], weights[8][body])
    assert not torch.equal(weights[0]["head.weight"], weights[7]["head.weight"])

    second = dataclasses.replace(first.method, alpha=0.1, first_stage=first.out)
    torch.manual_seed(5)
    model = build_model("motion_cnn", 4)
    method_module = second.module(model, "head", second.tables(named_data))
    start_from(second.first_stage, model, method_module)
    saved = torch.load(find_checkpoint(first.out) / "state.pt", weights_only=True)["extra"]
    assert saved and all(torch.equal(value, saved[name]) for name, value in method_module.state_dict().items())
    assert all(torch.equal(value, weights[-1][name]) for name, value in model.state_dict().items())
    # ``build`` does it, for ALBAR on top of it as well
    config = dataclasses.replace(first, out=tmp_path / "second", method=Albar(base=second))
    state, _ = build_run(config, DatasetInfo.read(named_data), Ranks(0, 1, torch.device("cpu")), steps=10)
    assert all(torch.equal(value, saved[name]) for name, value in state.method_module.state_dict().items())
    with pytest.raises(InputError, match="what its method adds to it, is another one"):
        narrow = dataclasses.replace(second, hidden=4).module(model, "head", second.tables(named_data))
        start_from(first.out, model, narrow)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        start_from(tmp_path / "nowhere", model, method_module)
