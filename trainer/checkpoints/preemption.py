"""Stopping on request: the run is saved after the step at hand and ends with exit code 75 ("try again later").

SIGTERM and SIGUSR1 come from schedulers, SIGHUP from a terminal that goes away, SIGINT (and on Windows SIGBREAK) from
Ctrl-C. A second Ctrl-C aborts at once, without saving.
"""

import logging
import os
import signal
import threading
import time

log = logging.getLogger(__name__)

EXIT_CODE = 75  # EX_TEMPFAIL: schedulers requeue on it
# by name: Windows has neither SIGHUP nor SIGUSR1, and no other system has SIGBREAK
KEYS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGBREAK") if hasattr(signal, name))
OTHERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
# torchrun passes on the Ctrl-C that the terminal has already sent to each of its processes: one press, two signals
SAME_PRESS_S = 3.0


class Preempted(SystemExit):
    """The run was asked to stop, and saved; not caught, this exception ends the process with code 75."""

    def __init__(self, step: int):
        super().__init__(EXIT_CODE)
        self.step = step


class StopRequest:
    """Remembers that a signal came; the loop reads it between steps, so that no step and no save is interrupted.

    The first Ctrl-C is a request, too; the second raises KeyboardInterrupt. Other signals change nothing when they come
    again. Outside the main thread, where Python takes no signals, it never triggers by itself. A signal that is ignored
    (``nohup``, a job in the background) stays ignored.

    Attributes:
        requested: whether a signal came.
        worth_saving: set by the loop once a step was done that is not saved. Before, the first Ctrl-C aborts.
    """

    def __init__(self):
        self.requested = False
        self.worth_saving = False
        self._previous = {}
        self._pressed: float | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for numbers, handler in ((KEYS, self._press), (OTHERS, self._note)):
                for number in numbers:
                    if signal.getsignal(number) != signal.SIG_IGN:
                        self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _press(self, number, frame):
        if not self.worth_saving:
            self.requested = True  # Python drops what is raised inside a destructor: the run then stops after its step
            raise KeyboardInterrupt
        now = time.monotonic()
        if self._pressed is None:
            self._pressed = now
            self._note(number, frame)
        elif "TORCHELASTIC_RUN_ID" not in os.environ or now - self._pressed > SAME_PRESS_S:
            raise KeyboardInterrupt

    def _note(self, number, _frame):
        already, self.requested = self.requested, True  # before the line, which a second Ctrl-C can cut off
        if not already:
            again = "; Ctrl-C again aborts without saving" if number in KEYS else ""
            log.warning("%s: saving after this step, then stopping%s", signal.Signals(number).name, again)
