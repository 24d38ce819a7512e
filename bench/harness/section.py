"""What a suite says about its part of the report: title, text, and the figures that its rows name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .row import Better

PICTURES = {  # file name -> title
    "models": "What the models read",
    "data": "From videos to clips",
    "training": "A training step",
    "kernels": "The kernels",
}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The words of one figure; its bars are the rows that name it.

    Attributes:
        title: what is compared.
        reading: how to read it, and what not to read into it.
        main: it is in the picture, too, and not only on the page.
        whiskers: what they span.
        reference: a value that is marked with a line, and its name.
        column: the fact that is drawn, instead of the rows' value; whiskers are then ``<column>_sd`` to either side.
        of: with ``column``: the figure that the rows name; by default the chart's own name.
        unit, better: of ``column``; a row's value has its own.
    """

    title: str
    reading: str = ""
    main: bool = True
    whiskers: str = "20th to 80th percentile"
    reference: tuple[float, str] | None = None
    column: str = ""
    of: str = ""
    unit: str = ""
    better: Better = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the report: everything that is drawn from the result files of one name.

    Attributes:
        title: of the section.
        text: what it is about, in a sentence.
        order: sections are sorted by it.
        picture: name of the PNG that its main figures are in, one of ``PICTURES``.
        charts: name -> figure; rows name theirs.
    """

    title: str
    text: str
    order: int = 100
    picture: str = ""
    charts: Mapping[str, Chart] = field(default_factory=dict)
