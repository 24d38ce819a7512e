"""Layer-wise decay of the learning rate, for the networks that recipes name."""

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.pipeline.errors import InputError
from unstill.trainer.models.huggingface import build_architecture
from unstill.trainer.models.registry import build_model
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.optimisers.factory import parameter_groups
from unstill.trainer.optimisers.layer_decay import layer_scales


def test_rates_fall_from_the_head_to_the_embeddings():
    pytest.importorskip("transformers")
    sizes = '"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2'
    model = build_architecture(f'{{"model_type": "videomae", {sizes}, "image_size": 32, "num_frames": 4}}', 4)
    scales = layer_scales(model, 0.5)
    prefix = "network.videomae."
    assert scales[prefix + "embeddings.patch_embeddings.projection.weight"] == 0.125
    assert scales[prefix + "encoder.layer.0.attention.attention.query.weight"] == 0.25
    assert scales[prefix + "encoder.layer.1.output.dense.bias"] == 0.5
    assert scales["network.fc_norm.weight"] == scales["network.classifier.weight"] == 1.0
    config = OptimiserConfig(lr=1.0, layer_decay=0.5, head_lr=10.0, decay_norms=False)
    groups = parameter_groups(model, "network.classifier", config)
    assert {group["lr"] for group in groups} == {0.125, 0.25, 0.5, 1.0, 10.0}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_blocks_of_stages_follow_each_other():
    swin = SwinTransformer3d([2, 4, 4], 12, [1, 2], [2, 2], [2, 3, 3], num_classes=4)
    scales = layer_scales(swin, 0.5)
    assert scales["patch_embed.proj.weight"] == 0.0625
    assert scales["features.0.0.attn.qkv.weight"] == scales["features.1.reduction.weight"] == 0.125  # merges after it
    assert [scales[f"features.2.{i}.mlp.0.weight"] for i in (0, 1)] == [0.25, 0.5] and scales["head.weight"] == 1.0
    with torch.device("meta"):
        for name in ("r3d_18", "mvit_v2_s"):
            found = list(layer_scales(build_model(name, 4), 0.5).values())
            assert found == sorted(found) and len(set(found)) > 8, name
    with pytest.raises(InputError, match="blocks are not known"):
        layer_scales(nn.Linear(2, 2), 0.5)
