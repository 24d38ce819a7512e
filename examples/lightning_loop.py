"""The loader under Lightning (pip install lightning): ClipDataset is an iterable dataset of complete batches.

python examples/lightning_loop.py data/own/train

Tried with Lightning 2.6.6.
"""

import argparse
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader
from torchvision.models.video import r3d_18

from unstill import AugmentConfig, ClipConfig, ClipDataset
from unstill.kernels import clip_prep
from unstill.pipeline.shards.dataset_info import DatasetInfo


def normalised(clips):
    """uint8 (B,T,H,W,3) -> flipped, normalised float32 (B,3,T,H,W)."""
    mean, std = (0.432, 0.395, 0.376), (0.228, 0.221, 0.217)
    return clip_prep(clips.frames, flip=clips.flip, mean=mean, std=std)[0]


class Classifier(lightning.LightningModule):
    """r3d_18 with cross entropy."""

    def __init__(self, classes: int):
        super().__init__()
        self.model = r3d_18(num_classes=classes)

    def training_step(self, batch, _):
        """Loss of one batch, whose clips are on the device already."""
        loss = torch.nn.functional.cross_entropy(self.model(batch["prepared"]), batch["label"])
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-4)


class Clips(lightning.LightningDataModule):
    """Batches of a converted dataset; each process makes its own share of every global batch."""

    def __init__(self, folder: str, batch_size: int, size: int):
        super().__init__()
        self.folder, self.batch_size, self.size = folder, batch_size, size

    def train_dataloader(self):
        """Called in each process, when it knows its rank and device."""
        self.dataset = ClipDataset(
            self.folder,
            clip=ClipConfig(frames=16, stride=2, size=self.size),
            augment=AugmentConfig(),
            batch_size=self.batch_size,
            device=self.trainer.strategy.root_device,
            prepare=normalised,
        )
        # the dataset makes the batches, in threads of its own: batch_size=None and no worker processes
        return DataLoader(self.dataset, batch_size=None)

    def teardown(self, stage: str):
        """Stop the threads."""
        self.dataset.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="folder made by `unstill convert`")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=112)
    options = parser.parse_args()
    clips = Clips(options.data, batch_size=options.batch_size, size=options.size)
    model = Classifier(len(DatasetInfo.read(Path(options.data)).classes))
    trainer = lightning.Trainer(max_epochs=options.epochs, logger=False, enable_checkpointing=False)
    trainer.fit(model, clips)


if __name__ == "__main__":
    main()
