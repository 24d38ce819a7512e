"""Drop path: rates that grow from block to block, in each family's own places."""

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.ops import StochasticDepth

from unstill.pipeline.errors import InputError
from unstill.trainer.models.drop_path import set_drop_path
from unstill.trainer.models.huggingface import build_architecture


def rates(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


def test_the_rate_grows_evenly_over_the_blocks():
    swin = SwinTransformer3d([2, 4, 4], 12, [1, 2], [2, 2], [2, 3, 3], num_classes=4)
    set_drop_path(swin, 0.4)
    assert rates(swin) == pytest.approx([0.0, 0.2, 0.4])
    with pytest.raises(InputError, match="no residual branches"):
        set_drop_path(nn.Linear(2, 2), 0.1)


def test_videomae_drops_the_two_branches_of_a_block():
    pytest.importorskip("transformers")
    sizes = '"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 3'
    model = build_architecture(f'{{"model_type": "videomae", {sizes}, "image_size": 32, "num_frames": 4}}', 4)
    names = set(model.state_dict())
    set_drop_path(model, 0.2)
    assert rates(model) == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2]) and set(model.state_dict()) == names
    block = model.network.videomae.encoder.layer[2].train()
    set_drop_path(model, 1.0)
    tokens = torch.randn(2, 5, 16)
    assert torch.equal(block(tokens), tokens)  # both branches are gone, and nothing but them
