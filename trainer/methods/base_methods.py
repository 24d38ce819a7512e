"""Methods that are complete by themselves and that ALBAR can also be added to (``Albar.base``)."""

from .sdn import Sdn
from .two_streams import TwoStreams

BaseMethod = Sdn | TwoStreams
