"""The child of ``--loader.isolate``: ``python -m unstill.pipeline.loading.decoding_child``. One clip a request."""

import mmap

import numpy as np

from ..sandbox.child import Answer, Handle, serve


def prepare() -> Handle:
    """What answers a request, see ``ChildDecoders.clip``."""
    import av.error

    from ..shards.sample_table import TrackHeader
    from .frame_decoder import KeptDecoders, SliceTable, load_compiled

    load_compiled()

    decoders: dict[int, KeptDecoders] = {}
    memory = np.empty(0, np.uint8)

    def handle(task: dict, payload: bytes, descriptors: list[int], answer: Answer) -> tuple[dict, bytes]:
        nonlocal memory
        del answer
        if descriptors:
            memory = np.frombuffer(mmap.mmap(descriptors[0], 0), np.uint8)
        frames, size = np.array(task["frames"]), task["size"]
        split = task["description"]
        # a decoder needs no more of the header
        table = SliceTable(TrackHeader(payload[:split], 1, 0, 0), task["sizes"], task["shown"])
        out = memory[: len(frames) * size * size * 3].reshape(len(frames), size, size, 3)
        decoder = decoders.setdefault(size, KeptDecoders(size))
        mp4 = np.frombuffer(payload, np.uint8, offset=split)
        try:
            decoder.clip(task["codec"], mp4, table, frames, tuple(task["picture"]), tuple(task["region"]), out)
        except (av.error.FFmpegError, ValueError) as error:
            decoder.forget()
            if isinstance(error, MemoryError):
                raise
            return {"bad": "corrupt", "detail": " ".join(str(error).split()) or type(error).__name__}, b""
        return {}, b""

    return handle


if __name__ == "__main__":
    serve(prepare)
