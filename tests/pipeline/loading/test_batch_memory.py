"""Memory of batches is lent again, and never while somebody still sees the last batch that was in it."""

import gc

import torch

from unstill.pipeline.loading.batch_memory import BatchMemory


def test_memory_is_lent_again_once_every_view_is_gone():
    memory = BatchMemory()
    first = memory.lend(4, 6, 3)
    place, view, pixels = first.data_ptr(), first[1:, :2].permute(1, 0, 2), first.numpy()
    del first
    for kept in ("view", "pixels"):
        other = memory.lend(4, 6, 3)
        assert other.data_ptr() != place, kept
        del other
        if kept == "view":
            del view
    del pixels
    assert memory.lend(2, 5).data_ptr() == place  # less fits, too


def test_what_was_delivered_stays_as_it_was():
    """A reader who keeps some batches, and parts of others, finds in them what was written."""
    memory, kept = BatchMemory(), []
    for n in range(40):
        batch = memory.lend(3, 1000).fill_(n)
        if n % 3 == 0:
            kept.append((n, batch))
        elif n % 3 == 1:
            kept.append((n, batch[2:]))
        del batch
        gc.collect(0)
    assert all(torch.equal(clips, torch.full_like(clips, n)) for n, clips in kept)


def test_little_waits():
    memory = BatchMemory()
    many = [memory.lend(10) for _ in range(9)]
    del many
    gc.collect()
    assert len(memory._spare) == 2
    memory.close()
    assert not memory._spare
