"""The loader in a plain PyTorch loop, with nothing else of unstill: a torchvision network on a converted dataset.

python examples/loop.py data/own/train --steps 100
"""

import argparse

import torch
from torch import nn
from torchvision.models.video import r3d_18

from unstill import AugmentConfig, ClipConfig, ClipLoader
from unstill.kernels import clip_prep


def normalised(clips):
    """uint8 (B,T,H,W,3) -> flipped, normalised float32 (B,3,T,H,W); it runs ahead, in the loader's thread."""
    mean, std = (0.432, 0.395, 0.376), (0.228, 0.221, 0.217)
    return clip_prep(clips.frames, flip=clips.flip, mean=mean, std=std)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="folder made by `unstill convert`")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = ClipLoader(
        options.data,
        clip=ClipConfig(frames=options.frames, stride=2, size=options.size),
        augment=AugmentConfig(),
        batch_size=options.batch_size,
        device=device,
        steps=options.steps,  # without it a loader never ends
        prepare=normalised,
        seed=0,
    )
    with loader:
        model = r3d_18(num_classes=len(loader.index.classes)).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4)
        for step, clips in enumerate(loader, 1):
            logits = model(clips.prepared)
            loss = nn.functional.cross_entropy(logits, clips.label)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if step % 10 == 0 or step == options.steps:  # reading a number waits for the GPU: not in every step
                right = (logits.argmax(1) == clips.label).float().mean().item()
                print(f"step {step} of {options.steps}: loss {loss.item():.3f}, {100 * right:.0f} % of the batch right")


if __name__ == "__main__":
    main()
