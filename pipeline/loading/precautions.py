"""What is done against videos that crash or take over a decoder: isolation, a record of what is decoded, a list."""

from dataclasses import dataclass

from .in_flight import InFlight
from .isolated_decoder import Isolation


@dataclass(frozen=True)
class Precautions:
    """Of one loader.

    Attributes:
        isolation: the cores decode in processes of their own; None: in this one.
        in_flight: told what is being decoded in this process, or None.
        left_out: samples that are not decoded.
    """

    isolation: Isolation | None = None
    in_flight: InFlight | None = None
    left_out: frozenset[int] = frozenset()
