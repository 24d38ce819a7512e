"""Named models: each has a double backward, compiles into one graph with it, and takes pretrained weights safely."""

import copy
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18, swin_t
from torchvision.models.video import mvit, resnet, swin_transformer
from torchvision.models.video.s3d import SepInceptionBlock3D

from unstill.pipeline.errors import InputError
from unstill.trainer.known_failures import refuse_unsupported
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline
from unstill.trainer.models.network import head_of, normalisation_of
from unstill.trainer.models.registry import MODELS, _load_backbone, build_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_named_model_has_a_double_backward_that_reaches_all_weights(name):
    # on the meta device: the whole network at its real clip shape, in a second, because no arithmetic is done
    with torch.device("meta"):
        model = build_model(name, 7)
        motion, target = torch.empty(2, 3, 16, 224, 224), torch.empty(2, dtype=torch.int64)
    static = torch.empty_like(motion).requires_grad_(True)
    logits = model(motion)
    assert logits.shape == (2, 7)
    head = dict(model.named_parameters())[head_of(model) + ".weight"]
    assert head.shape[0] == 7
    if name in ("swin3d_s", "swin3d_b"):
        return  # swin3d_t's layers, more and wider
    loss, _ = LossModule(model, Albar())(motion, static, target, True)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def reduced(family: str) -> tuple[nn.Module, tuple[int, int]]:
    """Fewer and narrower blocks of one family, float64, no dropout, and a clip shape (T, side) that it can take."""
    if family == "swin3d":
        model = swin_transformer.SwinTransformer3d([2, 4, 4], 12, [2], [2], [2, 3, 3], num_classes=4)
        model.features[0] = nn.Sequential(model.features[0][1])  # the shifted block has all that the other has
        return model, (4, 24)
    if family.startswith("mvit"):
        # a block that pools queries and keys, and widens; v1 and v2 differ in positions and residuals
        settings = [mvit.MSBlockConfig(2, 8, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1])] * 2
        v2 = family == "mvit_v2"
        options = {"residual_pool": v2, "rel_pos_embed": v2, "proj_after_attn": v2, "residual_with_cls_embed": not v2}
        model = mvit.MViT((16, 16), 4, settings, dropout=0.0, num_classes=4, **options)
        model.blocks = model.blocks[:1]
        return model, (4, 16)
    if family == "s3d":
        norm = lambda width: nn.BatchNorm3d(width, eps=0.001)  # noqa: E731
        return nn.Sequential(
            nn.Conv3d(3, 8, 3, (1, 2, 2)),
            SepInceptionBlock3D(8, 4, 4, 4, 2, 4, 4, norm),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        ), (4, 16)
    convolutions = [resnet.Conv2Plus1D] * 4
    model = resnet.VideoResNet(resnet.BasicBlock, convolutions, [1, 1, 1, 1], resnet.R2Plus1dStem, num_classes=4)
    return nn.Sequential(model.stem, model.layer1, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 4)), (4, 16)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["swin3d", "mvit_v1", "mvit_v2", "r2plus1d", "s3d"])
def test_every_family_compiles_into_one_graph_with_equal_gradients(family):
    torch.manual_seed(0)
    model, (frames, side) = reduced(family)
    model = model.double().train()
    for module in model.modules():
        if type(module).__name__ in ("StochasticDepth", "Dropout"):
            module.p = 0.0
    motion = torch.randn(2, 3, frames, side, side, dtype=torch.float64)
    found = []
    for compiled in (False, True):
        net = copy.deepcopy(model)
        loss_module = LossModule(net, Albar(gp_norm="per_sample", w_gp=0.1))
        if compiled:
            torch._dynamo.reset()
            torch._dynamo.config.trace_autograd_ops = True
            loss_module.compile(fullgraph=True, dynamic=False, backend="aot_eager")
        static = motion[:, :, 1:2].expand_as(motion).contiguous().requires_grad_(True)
        loss_module(motion, static, torch.tensor([1, 3]), True)[0].backward()
        found.append({name: p.grad for name, p in net.named_parameters()})
    scale = float(max(g.abs().max() for g in found[0].values()))
    for name, g in found[0].items():
        torch.testing.assert_close(found[1][name], g, rtol=1e-10, atol=1e-12 * scale)


def test_weights_of_a_file_are_taken_and_only_the_head_may_differ(tmp_path):
    source = build_model("motion_cnn", 5)
    save_file(source.state_dict(), tmp_path / "five.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "five.pth")
    for file in ("five.safetensors", "five.pth"):
        same = build_model("motion_cnn", 5, str(tmp_path / file))
        other = build_model("motion_cnn", 3, str(tmp_path / file))
        assert torch.equal(same.head.weight, source.head.weight)
        assert torch.equal(other.features[0].weight, source.features[0].weight) and other.head.weight.shape[0] == 3
    with pytest.raises(InputError, match="unknown, first"):
        build_model("r3d_18", 5, str(tmp_path / "five.safetensors"))
    (tmp_path / "bad.pth").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="not readable"):
        build_model("motion_cnn", 5, str(tmp_path / "bad.pth"))
    with pytest.raises(InputError, match="no such file"):
        build_model("motion_cnn", 5, str(tmp_path / "none.pth"))


def test_a_new_head_starts_as_a_linear_layer_does():
    """Uniform up to 1/sqrt(D), weights and biases, as in ALBAR's code; Swin's own is a narrow normal without bias."""
    net = nn.Sequential()
    net.body, net.head = nn.Linear(4, 64), nn.Linear(64, 400)
    nn.init.trunc_normal_(net.head.weight, std=0.02)  # as torchvision's Swin
    nn.init.zeros_(net.head.bias)
    state = {"body.weight": torch.ones(64, 4), "body.bias": torch.ones(64), "head.weight": torch.zeros(7, 64)}
    _load_backbone(net, state, "head", "a file")
    for values in (net.head.weight, net.head.bias):
        assert 0.95 / 8 < values.abs().max() <= 1 / 8
        assert values.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.15)
    known = {**state, "head.weight": torch.ones(400, 64), "head.bias": torch.ones(400)}
    _load_backbone(net, known, "head", "a file")
    assert torch.equal(net.head.weight, torch.ones(400, 64))  # a head of the same classes is kept


def test_a_picture_networks_own_weights_are_taken(tmp_path):
    """As torchvision has them, 1000 classes, without a prefix: for the reference network of StillMix."""
    picture = resnet18(num_classes=1000)
    torch.save(picture.state_dict(), tmp_path / "imagenet.pth")
    model = build_model("unstill.trainer.models.frame_net:resnet18", 3, str(tmp_path / "imagenet.pth"))
    assert torch.equal(model.picture.conv1.weight, picture.conv1.weight)
    assert model.picture.fc.out_features == 3 and head_of(model) == "picture.fc"


@pytest.mark.slow
def test_weights_of_a_pictures_swin_give_its_logits_on_still_clips(tmp_path):
    picture = swin_t(num_classes=7).eval()
    for name, value in picture.named_parameters():
        if "bias_table" in name:
            nn.init.normal_(value)  # or a wrong place in the table would not be seen
    torch.save(picture.state_dict(), tmp_path / "swin_t.pth")
    video = build_model("swin3d_t", 7, str(tmp_path / "swin_t.pth")).eval()
    still = torch.randn(1, 3, 224, 224)  # windows of 7 x 7 divide every stage
    with torch.no_grad():
        logits = video(still[:, :, None].expand(-1, -1, 4, -1, -1))
        torch.testing.assert_close(logits, picture(still), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="only for swin3d_t"):
        build_model("r3d_18", 7, "imagenet")


def test_a_pickle_in_a_weights_file_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"not readable as plain tensors \(it asks for _?io.open, which is code"):
        build_model("motion_cnn", 2, str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "text.pt").write_text("no weights\n")
    with pytest.raises(InputError, match=r"tensors \(it is damaged, or something else\); expected"):
        build_model("motion_cnn", 2, str(tmp_path / "text.pt"))  # torch advises to run what is in it


def test_names_are_checked():
    with pytest.raises(InputError, match=r"model\.name is 'resnet'; expected one of motion_cnn, motion_resnet, "):
        build_model("resnet", 2)
    with pytest.raises(InputError, match=r"cannot import it .*'no_such_module'.*; give its folder: PYTHONPATH=FOLDER"):
        build_model("no_such_module:net", 2)
    with pytest.raises(InputError, match=r"has no attribute 'net'\); expected module:function"):
        build_model("json:net", 2)
    with pytest.raises(InputError, match=r"returned int; expected a torch\.nn\.Module"):
        build_model("builtins:int", 2)
    with pytest.raises(InputError, match="16 frames of 224"):
        build_model("mvit_v2_s", 2, frames=8, size=112)
    assert isinstance(build_model("synthetic_run:layer_norm_net", 3), nn.Module)


def test_a_network_of_the_users_own_is_found_beside_them(tmp_path, monkeypatch):
    (tmp_path / "my_own_net.py").write_text(
        "from torch import nn\n\ndef net(classes):\n    return nn.Linear(2, classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert build_model("my_own_net:net", 5).out_features == 5


OWN_NETS = """
from torch import nn

from unstill.trainer.models.network import Network


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body, self.last = nn.Linear(2, 3), nn.Linear(3, classes)


def by_keyword(pretrained=False, num_classes=2):
    assert pretrained is False
    return Net(num_classes)


def torchvisions_way(*, weights=None, **options):
    return Net(**{"classes": options["num_classes"]})


def described(classes):
    return Network(module=Net(classes), head="last", mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))


def misdescribed(classes):
    return Network(module=Net(classes), head="fc")
"""


def test_a_function_gets_the_classes_its_way_and_may_say_what_its_network_is(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(OWN_NETS)
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    for function in ("by_keyword", "torchvisions_way", "described"):
        assert build_model(f"own_nets:{function}", 5).last.out_features == 5
    model = build_model("own_nets:described", 5)
    assert head_of(model) == "last" and normalisation_of(model) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert head_of(copy.deepcopy(model)) == "last" and head_of(build_model("own_nets:by_keyword", 5)) == ""
    save_file(model.state_dict(), tmp_path / "five.safetensors")
    other = build_model("own_nets:described", 3, str(tmp_path / "five.safetensors"))  # a new head, as of named models
    assert torch.equal(other.body.weight, model.body.weight)
    with pytest.raises(InputError, match="its head 'fc' is no layer"):
        build_model("own_nets:misdescribed", 5)


class FSDPModule(nn.Linear):
    """Named as torch's class: that is how it is recognised."""


def test_combinations_known_to_train_wrongly_are_refused_by_name():
    sync = nn.Sequential(nn.Conv3d(3, 4, 1), nn.SyncBatchNorm(4))
    with pytest.raises(InputError, match="1 is a SyncBatchNorm, which has no double backward"):
        refuse_unsupported(sync, Albar(), "mine")
    refuse_unsupported(sync, Albar(w_gp=0), "mine")
    refuse_unsupported(sync, Baseline(), "mine")
    with pytest.raises(InputError, match="FSDPModule; per-layer FSDP"):
        refuse_unsupported(nn.Sequential(FSDPModule(2, 2)), Albar(), "mine")
    with pytest.raises(InputError, match="DataParallel; give the bare network"):
        refuse_unsupported(nn.DataParallel(nn.Linear(2, 2)), Albar(), "mine")
