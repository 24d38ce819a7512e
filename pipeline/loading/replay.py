"""The ideal loader: one that has every batch already, for measuring what the step alone could take.

    data wait of a run = 1 - its clips/s / the clips/s of the same run with ``--replay``

Only reading and decoding are left out. Preparing the clips ahead, the queue, the streams and the hand-over to the loop
are those of the real loader, because they are its code; so is the step.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .clip_stream import ClipStream, DecodedBatch
from .loader import ClipLoader
from .sampler import step_positions


class ReplayLoader(ClipLoader):
    """A training ``ClipLoader`` that decodes the batches of the run's first steps and then delivers nothing else.

    All of them are decoded before the first is delivered, so that no step competes with the decoder. Step s gets batch
    ``s % replay``, whichever step the loader starts with. Statistics count bytes and frames where they were read.

    Args:
        replay: number of batches; their frames (uint8) stay on the device.
        arguments, options: as for ``ClipLoader``, with ``augment``.
    """

    def __init__(self, *arguments: Any, replay: int, **options: Any):
        super().__init__(*arguments, **options)
        self._replay = replay

    def _decoded(self, stream: ClipStream) -> Iterator[DecodedBatch]:
        first = (step_positions(step, self._batch, self._rank, self._world) for step in range(self._replay))
        # a copy: the decoder's own memory is needed for its next batch
        kept = [replace(decoded, clips=decoded.clips.clone()) for decoded in stream.batches(first)]
        last = self._last_step
        for step in itertools.count(self._start_step) if last is None else range(self._start_step, last):
            which = step % self._replay
            yield kept[which]
            kept[which] = replace(kept[which], bytes_read=0, frames_decoded=0)
