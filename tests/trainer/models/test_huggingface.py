"""``hf:`` networks: a folder of tiny random weights stands for the Hub; nothing is downloaded."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from synthetic_run import FRAMES, SAMPLES, SIZE, loader_of, make_dataset, run_config
from torch import nn

from unstill.pipeline.errors import InputError
from unstill.trainer.build import with_network_facts
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.models.huggingface import FAMILIES, build_architecture, import_transformers, read_source
from unstill.trainer.models.network import head_of
from unstill.trainer.models.registry import build_model
from unstill.trainer.monitoring.config import LogConfig
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

pytest.importorskip("transformers")
transformers = import_transformers()
pytestmark = pytest.mark.usefixtures("one_thread")

COMMON = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 1}
TINY = {
    "videomae": COMMON | {"image_size": SIZE, "num_frames": FRAMES, "patch_size": 4},
    "vivit": COMMON | {"image_size": SIZE, "num_frames": FRAMES, "tubelet_size": [2, 4, 4]},
    "timesformer": COMMON | {"image_size": SIZE, "num_frames": FRAMES, "patch_size": 4},
    # pretrained at another clip shape: its positions are rotary
    "vjepa2": COMMON
    | {"crop_size": 32, "frames_per_clip": 16, "patch_size": 4, "num_pooler_layers": 1, "pred_num_hidden_layers": 1}
    | {"pred_hidden_size": 12, "pred_num_attention_heads": 2},
    "videoprism_vision_model": {key: value for key, value in COMMON.items() if key != "num_hidden_layers"}
    | {"image_size": SIZE, "num_frames": FRAMES, "tubelet_size": [1, 4, 4]}
    | {"num_spatial_layers": 1, "num_temporal_layers": 1},
}
# ViViT, V-JEPA 2 and VideoPrism compute the softmax of their plain attention in float32
EXACT = {"videomae": 1e-12, "timesformer": 1e-12}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder for each family as ``save_pretrained`` writes it, for four classes."""
    found = {}
    for kind, sizes in TINY.items():
        torch.manual_seed(0)
        config = getattr(transformers, FAMILIES[kind].config)(**sizes, num_labels=4)
        config._attn_implementation = "eager"
        network = getattr(transformers, FAMILIES[kind].network)(config)
        for parameter in network.parameters():  # as trained: transformers starts biases at 0
            nn.init.normal_(parameter, std=0.1)
        found[kind] = tmp_path_factory.mktemp(kind)
        network.save_pretrained(found[kind])
        processor = {
            "image_mean": [0.5, 0.4, 0.3],
            "image_std": [0.2, 0.2, 0.25],
            "rescale_factor": 0.00392156862745098,
        }
        (found[kind] / "preprocessor_config.json").write_text(json.dumps(processor))
    return found


def gradients(model: nn.Module, backend: str | None = None) -> dict[str, torch.Tensor]:
    """Of ALBAR's loss, by parameter."""
    generator = torch.Generator().manual_seed(1)
    motion = torch.randn(2, 3, FRAMES, SIZE, SIZE, dtype=torch.float64, generator=generator)
    static = motion[:, :, 1:2].expand_as(motion).contiguous().requires_grad_(True)
    loss = LossModule(model, Albar(gp_norm="per_sample"))
    if backend:
        torch._dynamo.reset()
        loss.compile(fullgraph=True, dynamic=False, backend=backend)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        loss(motion, static, torch.tensor([1, 3]), True)[0].backward()
    return {name.removeprefix("network."): p.grad for name, p in model.named_parameters()}


class Plain(nn.Module):
    """transformers' own network with its plain attention, called as its documentation says."""

    def __init__(self, kind: str, folder: Path):
        super().__init__()
        changes = {} if FAMILIES[kind].positions_fixed else {"frames_per_clip": FRAMES, "crop_size": SIZE}
        self.network = getattr(transformers, FAMILIES[kind].network).from_pretrained(
            folder, attn_implementation="eager", **changes
        )
        self.argument = FAMILIES[kind].argument

    def forward(self, clips):
        return self.network(**{self.argument: clips.permute(0, 2, 1, 3, 4)}).logits.reshape(len(clips), -1)


@pytest.mark.parametrize("backend", [None, pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", TINY)
def test_gradients_of_albar_are_those_of_the_original_with_plain_attention(kind, backend, folders):
    model = build_model(f"hf:{folders[kind]}", 4, "pretrained", frames=FRAMES, size=SIZE).double().train()
    found, expected = gradients(model, backend), gradients(Plain(kind, folders[kind]).double().train())
    assert None not in found.values()  # V-JEPA 2's predictor is not there
    whole = torch.cat([expected[name].flatten() for name in found])
    apart = torch.cat([(found[name] - expected[name]).flatten() for name in found])
    assert float(apart.norm() / whole.norm()) < EXACT.get(kind, 1e-5)


def hub_key(key: str) -> str:
    """VideoMAE's files call some biases otherwise."""
    return key.replace("query.bias", "q_bias").replace("value.bias", "v_bias")


def test_another_number_of_classes_keeps_all_but_the_last_layer(folders):
    name = f"hf:{folders['videomae']}"
    model = build_model(name, 7, "pretrained", frames=FRAMES, size=SIZE)
    weights = load_file(folders["videomae"] / "model.safetensors")
    assert head_of(model) == "network.classifier" and model.network.classifier.weight.shape == (7, 16)
    own = model.network.state_dict()
    assert all(torch.equal(own[key], weights[hub_key(key)]) for key in own if not key.startswith("classifier."))
    assert not torch.equal(build_model(name, 4).network.fc_norm.weight, own["fc_norm.weight"])  # none: random weights


def test_biases_of_queries_and_values_are_loaded(folders):
    """Some versions of transformers left them at 0."""
    weights = load_file(folders["videomae"] / "model.safetensors")
    own = build_model(f"hf:{folders['videomae']}", 4, "pretrained").network.state_dict()
    biases = [key for key in own if key.endswith(("query.bias", "value.bias"))]
    assert len(biases) == 2
    for key in biases:
        assert torch.equal(own[key], weights[hub_key(key)]) and bool(own[key].all())


def test_mean_and_std_are_the_processors(tmp_path, folders):
    source = read_source(f"hf:{folders['vivit']}")
    assert source.mean == (0.5, 0.4, 0.3) and source.std == (0.2, 0.2, 0.25)
    (tmp_path / "config.json").write_text((folders["vivit"] / "config.json").read_text())
    # google/vivit-*: pixels of -1..1, then minus 0.5 over 0.5
    vivit = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0.00784313725490196, "offset": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(vivit))
    source = read_source(f"hf:{tmp_path}")
    pixel = torch.tensor([0.0, 100.0, 255.0])
    expected = (pixel / 127.5 - 1 - 0.5) / 0.5
    torch.testing.assert_close((pixel / 255 - source.mean[0]) / source.std[0], expected)


@pytest.mark.parametrize("kind", TINY)
def test_two_steps_of_albar_train_and_the_run_is_loaded_without_its_folder(kind, folders, tmp_path, monkeypatch):
    make_dataset(tmp_path / "data")
    (tmp_path / "hub").symlink_to(folders[kind])
    model = ModelConfig(name=f"hf:{tmp_path / 'hub'}", weights="pretrained")
    step = StepConfig(precision="fp32", compile="off")
    shape = {"epochs": 2 * 2 / SAMPLES, "batch_size": 2, "log": LogConfig(every=1)}
    config = run_config(tmp_path, model=model, method=Albar(gp_norm="per_sample"), step=step, **shape)
    config = replace(config, inputs=replace(config.inputs, transform=None))
    result = train(config, make_loader=loader_of())
    records = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    losses = [record for record in records if "loss" in record]
    assert result.steps == len(losses) == 2 and all(np.isfinite([r["loss"], r["gp"]]).all() for r in losses)
    (tmp_path / "hub").unlink()
    monkeypatch.setattr("unstill.trainer.models.huggingface._read_file", lambda *_: pytest.fail("asked the Hub"))
    network, saved, classes = load_model(result.checkpoint)  # its name runs no code: no --trust-model-code
    assert saved.inputs.mean == (0.5, 0.4, 0.3) and f'"model_type": "{kind}"' in saved.model.architecture
    assert network(torch.zeros(1, 3, FRAMES, SIZE, SIZE)).shape == (1, len(classes))


def test_what_does_not_fit_is_said_in_one_line(folders, tmp_path):
    name = f"hf:{folders['videomae']}"
    with pytest.raises(InputError, match=rf"takes clips of {FRAMES} frames of {SIZE}; got 32 of 224: set --clip"):
        build_model(name, 4, frames=32, size=224)
    with pytest.raises(InputError, match="multiple of 2 frames of a multiple of 4; got 3 of"):
        build_model(f"hf:{folders['vjepa2']}", 4, frames=3, size=SIZE)
    with pytest.raises(InputError, match=r"no config\.json there"):
        build_model(f"hf:{tmp_path}", 4)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="has a network of type 'bert'; expected one of videomae"):
        build_model(f"hf:{tmp_path}", 4)
    (tmp_path / "config.json").write_text((folders["videomae"] / "config.json").read_text())
    with pytest.raises(InputError, match="cannot be loaded"):
        build_model(f"hf:{tmp_path}", 4, "pretrained")


def test_a_file_chooses_sizes_and_no_code(folders):
    name, source = f"hf:{folders['videomae']}", read_source(f"hf:{folders['videomae']}")
    with pytest.raises(InputError, match="without its architecture"):
        build_model(name, 4, named_in=Path("config.json"))  # it would read a folder, or the Hub, that a file names
    plain = json.loads(source.architecture)
    evil = {
        "_attn_implementation": "kernels-community/evil",
        "attn_implementation": "kernels-community/evil",
        "auto_map": {"AutoModel": "evil--code.Model"},
        "quantization_config": {"quant_method": "evil"},
    }
    model = build_architecture(json.dumps(plain | evil), 4)
    config = model.network.config
    assert config._attn_implementation == "sdpa"
    assert not hasattr(config, "auto_map") and getattr(config, "quantization_config", None) is None
    assert set(evil).isdisjoint(plain)
    with pytest.raises(InputError, match="cannot be built"):
        build_architecture(json.dumps(plain | {"hidden_act": "os.system"}), 4)


@pytest.mark.parametrize("kind", ["vjepa2", "videomae"])
def test_a_probe_trains_over_a_frozen_encoder(kind, folders):
    source = read_source(f"hf:{folders[kind]}", probe=True)
    name, clip = f"hf:{folders[kind]}", {"frames": FRAMES, "size": SIZE}
    model = build_model(name, 4, "pretrained", **clip, architecture=source.architecture).double().train()
    whole = build_model(name, 4, "pretrained", **clip).double()
    assert not model.network.training and model.probe.training
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert all(key.startswith(("probe.", "network.classifier.")) for key in trained) and len(trained) > 20
    clips = torch.randn(2, 3, FRAMES, SIZE, SIZE, dtype=torch.float64)
    seen = []
    model.probe.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(clips)
    inputs = {FAMILIES[kind].argument: clips.transpose(1, 2)} | ({"skip_predictor": True} if kind == "vjepa2" else {})
    torch.testing.assert_close(seen[0], whole.eval().network.base_model(**inputs).last_hidden_state)
    found = gradients(model)  # of ALBAR, with its penalty through the frozen encoder
    for key, p in model.named_parameters():
        assert (p.grad is not None) == (key in trained), key
    assert all(bool(g.isfinite().all()) for g in found.values() if g is not None)


def test_defaults_of_the_run_give_way_to_the_networks_normalisation(folders, tmp_path):
    config = run_config(tmp_path, model=ModelConfig(name=f"hf:{folders['videomae']}"))
    assert with_network_facts(config, 4).inputs.mean == (0.5, 0.4, 0.3)
    own = replace(config, inputs=replace(config.inputs, mean=(0.1, 0.1, 0.1)))
    assert with_network_facts(own, 4).inputs == own.inputs
    once = with_network_facts(config, 4)
    assert with_network_facts(once, 4) == once == with_network_facts(copy.deepcopy(config), 4)
