"""Dropout before the last layer: in training alone, unbiased, and without another name for a weight."""

import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.models.head_dropout import drop_before
from unstill.trainer.models.registry import build_model


def test_features_are_dropped_in_training_only():
    torch.manual_seed(0)
    model = build_model("motion_cnn", 4)
    names, clips = list(model.state_dict()), torch.randn(2, 3, 4, 16, 16)
    before = model.eval()(clips)
    drop_before(model, "head", 0.5)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(clips), before, rtol=0, atol=0)
    with torch.no_grad():
        drawn = torch.cat([model.train()(clips.repeat(200, 1, 1, 1, 1)).unflatten(0, (200, 2)) for _ in range(20)])
    assert drawn.std(0).min() > 0
    error = drawn.std(0) / 4000**0.5
    assert ((drawn.mean(0) - before).abs() < 5 * error).all()  # inverted dropout keeps the mean
    with pytest.raises(InputError, match="head_dropout"):
        drop_before(build_model("s3d", 4), "classifier.1", 0.5)
