"""Matrix products over chunks of rows, so that what is wide exists for one chunk only."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# bytes of one temporary. CPU: fits a 1 MiB L2 cache, and stays clear of the page faults of fresh tensors of some MiB
# (4 to 14 ns an element, against 1 ns of the pass itself). CUDA: products of some 80,000 rows.
CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**26}


def chunks(rows: int, hidden: int, example: Tensor) -> Iterator[slice]:
    """Slices of rows whose temporaries of the hidden width have at most ``CHUNK_BYTES``."""
    budget = CHUNK_BYTES.get(example.device.type, CHUNK_BYTES["cuda"])
    step = max(1, budget // (hidden * example.element_size()))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class Workspace:
    """Temporaries of the hidden width that every chunk of one call uses again."""

    def __init__(self, rows: int, hidden: int, example: Tensor):
        self._slices = list(chunks(rows, hidden, example))
        self._shape = (max((s.stop - s.start for s in self._slices), default=0), hidden)
        self._example, self._made = example, {}

    def __iter__(self) -> Iterator[slice]:
        for rows in self._slices:
            self._rows = rows
            yield rows

    def __getitem__(self, name: str) -> Tensor:
        """The temporary of this name, as many rows as the current chunk has."""
        if name not in self._made:
            self._made[name] = self._example.new_empty(self._shape)
        return self._made[name][: self._rows.stop - self._rows.start]


def affine(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """``F.linear`` into ``out``."""
    return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)


class Total:
    """A weight gradient summed over chunks, in float32 where the chunks are of a lower precision."""

    def __init__(self, example: Tensor, *shape: int):
        self._dtype = example.dtype
        wide = torch.float32 if example.dtype in (torch.bfloat16, torch.float16) else example.dtype
        self._sum = example.new_zeros(shape, dtype=wide)

    def add_product(self, a: Tensor, b: Tensor) -> None:
        """Add a' b, for a (rows, n) and b (rows, m)."""
        if self._sum.dtype == a.dtype:
            self._sum.addmm_(a.t(), b)
        else:
            self._sum += a.t() @ b

    def add_rows(self, a: Tensor) -> None:
        """Add the sum over rows."""
        self._sum += a.sum(0, dtype=self._sum.dtype)

    def value(self) -> Tensor:
        """The sum in the dtype of the weight."""
        return self._sum.to(self._dtype)


def product_flops(number: int, rows: Sequence[int], weight: Sequence[int]) -> int:
    """Floating point operations of ``number`` products of rows (M, .) with a weight, each 2 M times its elements."""
    return 2 * number * rows[0] * weight[0] * weight[1]
