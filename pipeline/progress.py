"""Progress of long work: a rich bar on a terminal, one plain line every few seconds elsewhere.

with Progress("converting", total=240_000, unit="videos") as progress:
    for video in videos:
        ...
        progress.advance(note="3 quarantined")
"""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

WIDE = 100  # columns of a terminal
PLAIN_EVERY_S = 5.0  # without a terminal: often enough to see life, rare enough for a log file


class Progress:
    """One stage of work with its rate and the time left.

    Args:
        stage: what is being done, a few words.
        total: number of items, or None when unknown.
        unit: what one item is, in the plural; shown as ``unit/s``.
        console: where to write; standard error by default, so that results on standard output stay clean.
        before: items that an earlier run has done: counted, but not in the rate; not in ``total`` either.
    """

    def __init__(
        self, stage: str, total: int | None, unit: str = "items", console: Console | None = None, before: int = 0
    ):
        self.stage, self.unit, self.before = stage, unit, before
        self.total = None if total is None else before + total
        self.console = console or Console(stderr=True)
        self.done = before
        self.note = ""
        self._bar: RichProgress | None = None

    def __enter__(self) -> "Progress":
        self._start = self._last = time.monotonic()
        if self.console.is_terminal:
            self._bar = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                column := BarColumn(bar_width=self._bar_width),
                TextColumn(
                    "{task.completed:.0f}/{task.total:.0f}" if self.total is not None else "{task.completed:.0f}"
                ),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self._column = column
            self._bar.start()
            self._task = self._bar.add_task(self.stage, total=self.total, completed=self.done, rate="", note="")
        return self

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Count ``n`` more items as done; ``note`` replaces the short text at the end of the line."""
        self.done += n
        self.note = self.note if note is None else note
        now = time.monotonic()
        if self._bar is not None:
            rate = self._rate(now)
            room = self._room(rate)
            self._column.bar_width = max(1, min(self._bar_width, self._bar_width + room))
            self._bar.update(self._task, completed=self.done, rate=rate, note=self._fitting_note(max(0, room)))
        elif now - self._last >= PLAIN_EVERY_S:
            self._last = now
            self._print_line(now)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            self._print_line(time.monotonic(), last=True)

    def _rate(self, now: float) -> str:
        elapsed = now - self._start
        if elapsed <= 0:
            return ""
        rate = (self.done - self.before) / elapsed
        return f"{rate:,.0f} {self.unit}/s" if rate >= 1000 else f"{rate:,.1f} {self.unit}/s"

    @property
    def _bar_width(self) -> int:
        return 24 if self.console.width >= WIDE else 10

    def _room(self, rate: str) -> int:
        """Columns that are free besides everything but the note; negative where the bar has to be shorter."""
        count = len(f"{self.done}" if self.total is None else f"{self.done}/{self.total}")
        gaps, spinner, time_left = 6, 1, len("0:00:00")
        used = spinner + len(self.stage) + self._bar_width + count + len(rate) + time_left + gaps
        return self.console.width - used

    def _fitting_note(self, room: int) -> str:
        """As much of the note as there is room for: what does not fit would cut the numbers."""
        return self.note if len(self.note) <= room else self.note[: max(0, room - 1)] + "…"[:room]

    def _print_line(self, now: float, last: bool = False) -> None:
        elapsed = now - self._start
        of = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        left = ""
        if not last and self.total and self.done > self.before:
            left = f", {elapsed / (self.done - self.before) * (self.total - self.done):.0f} s left"
        note = f", {self.note}" if self.note else ""
        line = f"{self.stage}: {of} {self.unit}, {self._rate(now)}{left or f', {elapsed:.1f} s'}{note}"
        print(line, file=sys.stderr if self.console.stderr else self.console.file, flush=True)
