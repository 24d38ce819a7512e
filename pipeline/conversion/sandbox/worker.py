"""The child in which videos are converted or shown: ``python -m unstill.pipeline.conversion.sandbox.worker``."""

from ...sandbox.child import Answer, Handle, serve


def prepare() -> Handle:
    """What answers a request, see ``run_task`` and ``show``."""
    from .task import run_task, show

    def handle(task: dict, payload: bytes, descriptors: list[int], answer: Answer) -> tuple[dict, bytes]:
        del payload
        return (show(task, descriptors, answer), b"") if "show" in task else run_task(task, descriptors)

    return handle


if __name__ == "__main__":
    serve(prepare)
