"""unstill: a high-throughput trainer for video models that recognise what moves.

The code lives in four subpackages, named as the folders of the repository:
``unstill.pipeline`` (videos -> shards -> clips), ``unstill.kernels`` (Triton),
``unstill.trainer`` (methods, step, loop, evaluation) and ``unstill.bench``.
"""

__version__ = "0.1.0"
