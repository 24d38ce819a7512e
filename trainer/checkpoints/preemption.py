"""Stopping on request: SIGTERM and SIGUSR1 save a checkpoint and end the run with exit code 75 ("try again later")."""

import logging
import signal
import threading

log = logging.getLogger(__name__)

EXIT_CODE = 75  # EX_TEMPFAIL: schedulers requeue on it
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """The run was asked to stop, and saved; not caught, this exception ends the process with code 75."""

    def __init__(self, step: int):
        super().__init__(EXIT_CODE)
        self.step = step


class StopRequest:
    """Remembers that a signal came; the loop reads it between steps, so that no step and no save is interrupted.

    More signals change nothing. Outside the main thread, where Python takes no signals, it never triggers by itself.
    """

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        self.requested = True
        log.warning("%s: saving after this step, then stopping", signal.Signals(number).name)
