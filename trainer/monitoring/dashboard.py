"""The display of a running training: a live panel on a terminal, one line per logged step elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

# record name -> (title, format); shown in this order when present, with the method's terms between the two
LOSS = {"loss": ("loss", "{:.4g}")}
PROGRESS = {
    "grad_norm": ("gradient norm", "{:.3g}"),
    "lr": ("learning rate", "{:.2e}"),
    "clips_per_s": ("clips/s", "{:,.1f}"),
    "data_wait": ("data wait", "{:.1%}"),
    "mfu": ("MFU", "{:.1%}"),
    "skipped": ("skipped steps", "{:d}"),
}


class Dashboard:
    """Shows logged records; whatever happens to the terminal, training goes on.

    Args:
        title: what is being trained.
        steps: length of the run.
        terms: what to show of the method's terms: name -> (title, format).
        done: steps that an earlier part of the run did.
        steps_per_epoch: for the epoch on the panel; None leaves it out.
        visible: False on all ranks but the first.
        console: where to write; standard error by default.
    """

    def __init__(
        self,
        title: str,
        steps: int,
        terms: dict[str, tuple[str, str]] | None = None,
        *,
        done: int = 0,
        steps_per_epoch: float | None = None,
        visible: bool = True,
        console: Console | None = None,
    ):
        self._shown = LOSS | (terms or {}) | PROGRESS
        self._title, self._steps, self._done, self._per_epoch = title, steps, done, steps_per_epoch
        self._console = console or Console(stderr=True)
        self._visible = visible
        self._live: Live | None = None
        self._record: dict = {}
        self._score: tuple[int, float] | None = None
        self._warnings: dict[str, str] = {}
        self._doing = ""
        # of the time left: the first step of a process compiles and fills the loader's queue, and says nothing
        self._timed_from: tuple[int, float] | None = None

    def __enter__(self) -> "Dashboard":
        self._start = time.monotonic()
        if self._visible and self._console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=4, transient=True)
            self._attempt(self._live.start)
        return self

    def __exit__(self, *_):
        if self._live is not None:
            self._attempt(self._live.stop)
            texts = [*(f"warning: {text}" for text in self._warnings.values()), self._line() if self._record else ""]
            for text in filter(None, texts):  # the panel vanishes; its last content stays on the screen
                self._attempt(lambda text=text: self._console.print(text, markup=False, highlight=False))

    def step(self, step: int) -> None:
        """Move the bar; the panel is drawn anew by time, not by step."""
        self._done = step
        if self._timed_from is None:
            self._timed_from = step, time.monotonic()

    def show(self, record: dict) -> None:
        """Show a logged record."""
        self._record = record
        if self._live is None and self._visible:
            self._attempt(lambda: print(self._line(), file=sys.stderr, flush=True))

    def scored(self, step: int, value: float) -> None:
        """Show the validation score of a step's checkpoint."""
        self._score = step, value
        if self._live is None and self._visible:
            line = f"{self._title} step {step}/{self._steps}  validation {value:.2f}"
            self._attempt(lambda: print(line, file=sys.stderr, flush=True))

    def warnings(self, warnings: Mapping[str, str]) -> None:
        """Show these warnings, name -> text, and no longer those that are not among them."""
        new = [text for name, text in warnings.items() if name not in self._warnings]
        self._warnings = dict(warnings)
        if self._live is None and self._visible:
            for text in new:
                self._attempt(lambda text=text: print(f"warning: {text}", file=sys.stderr, flush=True))

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Inside, the panel says that something else than a step is going on."""
        self._doing = what
        try:
            yield
        finally:
            self._doing = ""

    def _line(self) -> str:
        record = self._record
        parts = [f"{self._title} step {record['step']}/{self._steps} epoch {record['epoch']:.2f}"]
        return "  ".join([*parts, *(f"{title} {value}" for title, value in self._cells()), self._left()])

    def _cells(self) -> list[tuple[str, str]]:
        cells = [
            (title, form.format(self._record[name])) for name, (title, form) in self._shown.items() if self._has(name)
        ]
        if self._score is not None:
            step, value = self._score
            cells.append(("validation", f"{value:.2f} (step {step})"))
        return cells

    def _panel(self) -> Group:
        place = [f"{self._done}/{self._steps} steps"]
        if self._per_epoch:
            place.append(f"epoch {self._done / self._per_epoch:.2f}")
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=self._steps, completed=self._done, width=min(24, max(4, self._console.width - 50))),
            Text("  ".join([*place, self._doing or self._left()]), no_wrap=True, overflow="ellipsis"),
        )
        cells = self._cells()
        width = max((len(title) + len(value) for title, value in cells), default=0) + 3
        columns = max(1, self._console.width // width)
        table = Table.grid(padding=(0, 2))
        for row in range(0, len(cells), columns):
            texts = [Text.assemble((f"{title} ", "dim"), value) for title, value in cells[row : row + columns]]
            table.add_row(*(Text(text.plain, spans=text.spans, no_wrap=True, overflow="ellipsis") for text in texts))
        title = Text(self._title, style="bold", no_wrap=True, overflow="ellipsis")
        warnings = (Text(f"warning: {text}", style="yellow") for text in self._warnings.values())
        return Group(title, bar, table, *warnings)

    def _has(self, name: str) -> bool:
        return self._record.get(name) is not None and not (name == "skipped" and self._record[name] == 0)

    def _left(self) -> str:
        now = time.monotonic()
        if self._done >= self._steps:
            return f"{now - self._start:.0f} s"
        if self._timed_from is None:
            return f"first step, {now - self._start:.0f} s"
        first, began = self._timed_from
        if self._done <= first:
            return ""
        seconds = round((now - began) / (self._done - first) * (self._steps - self._done))
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min {seconds % 60:02d} s left"

    def _attempt(self, draw) -> None:
        try:
            draw()
        except Exception:  # a closed terminal or pipe
            self._visible, self._live = False, None
