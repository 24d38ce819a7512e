"""The display of a running training: a live panel on a terminal, one line per logged step elsewhere."""

import sys
import time

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
    "validation": ("validation", "{:.2f}"),
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
        visible: bool = True,
        console: Console | None = None,
    ):
        self._shown = LOSS | (terms or {}) | PROGRESS
        self._title, self._steps, self._done, self._first = title, steps, done, done
        self._console = console or Console(stderr=True)
        self._visible = visible
        self._live: Live | None = None
        self._record: dict = {}
        self._score: float | None = None
        self._notes: list[str] = []

    def __enter__(self) -> "Dashboard":
        self._start = time.monotonic()
        if self._visible and self._console.is_terminal:
            self._live = Live(self._panel(), console=self._console, refresh_per_second=4, transient=True)
            self._attempt(self._live.start)
        return self

    def __exit__(self, *_):
        if self._live is not None:
            self._attempt(self._live.stop)
            for text in (*(f"warning: {note}" for note in self._notes), self._line() if self._record else ""):
                if text:  # the panel vanishes; its last content stays on the screen
                    self._attempt(lambda text=text: self._console.print(text, markup=False, highlight=False))

    def step(self, step: int) -> None:
        """Move the bar; costs nothing when no panel is shown."""
        self._done = step
        live = self._live
        if live is not None and (step - self._first) % 4 == 0:
            self._attempt(lambda: live.update(self._panel()))

    def show(self, record: dict) -> None:
        """Show a logged record."""
        self._record = record if self._score is None else record | {"validation": self._score}
        if self._live is None and self._visible:
            self._attempt(lambda: print(self._line(), file=sys.stderr, flush=True))

    def scored(self, value: float) -> None:
        """Show a validation score with the records that follow."""
        self._score = value

    def warn(self, text: str) -> None:
        """Show a warning; it stays."""
        self._notes.append(text)
        if self._live is None and self._visible:
            self._attempt(lambda: print(f"warning: {text}", file=sys.stderr, flush=True))

    def _line(self) -> str:
        record = self._record
        parts = [f"{self._title} step {record['step']}/{self._steps} epoch {record['epoch']:.2f}"]
        parts += [
            f"{title} {form.format(record[name])}" for name, (title, form) in self._shown.items() if self._has(name)
        ]
        return "  ".join([*parts, self._left()])

    def _panel(self) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=self._steps, completed=self._done, width=24),
            f"{self._done}/{self._steps} steps",
            self._left(),
        )
        table = Table.grid(padding=(0, 2))
        cells = [
            (title, form.format(self._record[name])) for name, (title, form) in self._shown.items() if self._has(name)
        ]
        for row in range(0, len(cells), 4):
            table.add_row(*(Text.assemble((f"{title} ", "dim"), value) for title, value in cells[row : row + 4]))
        return Group(bar, table, *(Text(f"warning: {note}", style="yellow") for note in self._notes[-3:]))

    def _has(self, name: str) -> bool:
        return self._record.get(name) is not None and not (name == "skipped" and self._record[name] == 0)

    def _left(self) -> str:
        done, elapsed = self._done - self._first, time.monotonic() - self._start
        if done < 1 or self._done >= self._steps:
            return f"{elapsed:.0f} s"
        seconds = round(elapsed / done * (self._steps - self._done))
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min {seconds % 60:02d} s left"

    def _attempt(self, draw) -> None:
        try:
            draw()
        except Exception:  # a closed terminal or pipe
            self._visible, self._live = False, None
