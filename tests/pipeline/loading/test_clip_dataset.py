"""ClipDataset in the loops of others: DataLoader, accelerate, Lightning; epochs, resume, ranks."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.clip_dataset import ClipDataset
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, ViewConfig

CLIP = ClipConfig(frames=6, stride=2, size=16)


def dataset(root, **options) -> ClipDataset:
    options = {"clip": CLIP, "augment": AugmentConfig(), "batch_size": 4, "device": "cpu"} | options
    return ClipDataset(root, **options)


def positions(passes) -> list[int]:
    return [p for batches in passes for batch in batches for p in batch["position"].tolist()]


def test_passes_are_epochs_of_the_loaders_own_order(small_dataset):
    data = dataset(small_dataset)  # 10 samples: two batches of four an epoch
    loader = DataLoader(data, batch_size=None)
    assert len(loader) == len(data) == 2
    passes = [list(loader) for _ in range(3)]
    assert [len(batches) for batches in passes] == [2, 2, 2] and positions(passes) == list(range(24))
    with ClipLoader(small_dataset, clip=CLIP, augment=AugmentConfig(), batch_size=4, device="cpu", steps=6) as own:
        for clips, batch in zip(own, [b for batches in passes for b in batches], strict=True):
            for name in ("frames", "label", "sample", "start_frame", "flip", "draws"):
                assert torch.equal(getattr(clips, name), batch[name]), name
    data.close()


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_run_continues_after_the_batches_it_has_seen(small_dataset, done):
    data = dataset(small_dataset, start_step=done)
    assert positions([list(data)])[0] == 4 * done
    assert len(list(data)) == 2  # the first pass ended with its epoch
    again = dataset(small_dataset)
    again.load_state_dict(data.state_dict())
    assert data.state_dict() == {"step": 2 * (done // 2) + 4}
    assert positions([list(again)])[0] == 4 * data.state_dict()["step"]
    data.close(), again.close()


def test_a_pass_that_was_left_is_continued_by_the_next(small_dataset):
    data = dataset(small_dataset)
    next(iter(data))
    assert positions([list(data), list(data)]) == list(range(4, 16))
    data.close()


def test_ranks_share_each_global_batch(small_dataset, monkeypatch):
    whole = dataset(small_dataset, batch_size=4)
    parts = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        part = dataset(small_dataset, batch_size=2)
        assert len(part) == len(whole)
        parts.append(list(part))
        part.close()
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(batch["frames"], torch.cat([share["frames"] for share in shares]))
    whole.close()


def test_an_evaluation_is_every_view_on_every_pass(small_dataset):
    data = dataset(small_dataset, augment=None, views=ViewConfig(temporal=2))
    assert len(data) == 5
    assert positions([list(data), list(data)]) == [*range(20), *range(20)]


def test_worker_processes_and_batches_that_never_fill_are_refused(small_dataset, monkeypatch):
    # how long a DataLoader waits for a process that failed: 5 s
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    with pytest.raises(InputError, match="num_workers=0"):
        list(DataLoader(dataset(small_dataset), batch_size=None, num_workers=1))
    with pytest.raises(InputError, match="10 clips are fewer than a batch of 11"):
        dataset(small_dataset, batch_size=11)


def test_frame_times(small_dataset):
    clip = ClipConfig(frames=6, stride=4, size=16, short_video="loop")
    with ClipLoader(small_dataset, clip=clip, augment=AugmentConfig(), batch_size=10, device="cpu", steps=1) as loader:
        clips = next(loader)
        times = loader.frame_times(clips)
        frames = np.asarray(loader.index.frames)[clips.source.sample]
    expected = (clips.source.start_frame[:, None] + 4 * np.arange(6)) % frames[:, None]  # 8 frames are too short
    assert (times.number == expected).all() and (frames < 21).any()
    np.testing.assert_allclose(times.seconds, expected / 30)


def prepare(clips):
    return clips.frames.float().mean((1, 2, 3)) / 255


def train(accelerator, data, batches) -> list[float]:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimiser, loader = accelerator.prepare(model, optimiser, DataLoader(data, batch_size=None))
    losses = []
    while len(losses) < batches:
        for batch in loader:
            loss = nn.functional.cross_entropy(model(batch["prepared"]), batch["label"])
            accelerator.backward(loss)
            optimiser.step()
            optimiser.zero_grad()
            losses.append((loss.item(), batch["position"].tolist()))
    data.close()
    return losses


def test_accelerate_trains_on_it_epoch_after_epoch(small_dataset):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    losses = train(accelerator, dataset(small_dataset, prepare=prepare), 6)
    assert [p for _, at in losses for p in at] == list(range(24))
    rest = train(accelerator, dataset(small_dataset, prepare=prepare, start_step=2), 4)
    assert [at for _, at in rest] == [at for _, at in losses[2:]]


PROGRAM = """
import json, sys
import accelerate
from unstill import AugmentConfig, ClipConfig, ClipDataset
accelerator = accelerate.Accelerator(cpu=True)
data = ClipDataset(sys.argv[1], clip=ClipConfig(frames=6, stride=2, size=16), augment=AugmentConfig(), batch_size=2,
                   device=accelerator.device)
seen = [batch["position"] for _ in range(2) for batch in data]
data.close()
both = [accelerator.gather(positions).tolist() for positions in seen]
if accelerator.is_main_process:
    print("GATHERED", json.dumps(both))
"""


@pytest.mark.slow
def test_two_processes_of_accelerate_share_the_clips(small_dataset, tmp_path):
    pytest.importorskip("accelerate")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), str(small_dataset)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both = json.loads(done.stdout.split("GATHERED", 1)[1].strip().splitlines()[0])
    assert both == [list(range(4 * step, 4 * step + 4)) for step in range(4)]


@pytest.mark.slow
def test_lightning_trains_and_validates_on_it(small_dataset, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.trained, self.validated = nn.Linear(3, 4), [], []

        def training_step(self, batch, _):
            self.trained += batch["position"].tolist()
            return nn.functional.cross_entropy(self.layer(batch["prepared"]), batch["label"])

        def validation_step(self, batch, _):
            self.validated += batch["position"].tolist()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Model()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    seen = dataset(small_dataset, augment=None, views=ViewConfig(), prepare=prepare)
    data = dataset(small_dataset, prepare=prepare)
    trainer.fit(model, DataLoader(data, batch_size=None), DataLoader(seen, batch_size=None))
    data.close()
    assert model.trained == list(range(24)) and model.validated == [*range(10)] * 3
