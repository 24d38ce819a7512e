"""Warnings of what goes wrong with a method's objective, given while the run can still be stopped and corrected."""

from collections.abc import Callable

Symptoms = Callable[[dict, int], dict[str, tuple[bool, str]]]


class SymptomWatch:
    """Turns logged metrics into warnings; each lasts until its cause is gone.

    Args:
        symptoms: the method's, see ``methods.terms.MethodDefaults.symptoms``.
        classes: number of classes.
        patience: logged steps in a row that a symptom must last.
    """

    def __init__(self, symptoms: Symptoms, classes: int, patience: int = 3):
        self._symptoms, self._classes, self._patience = symptoms, classes, patience
        self._seen: dict[str, int] = {}

    def warnings(self, record: dict) -> dict[str, str]:
        """Name -> text of the warnings that hold after this logged record, with its values."""
        warnings = {}
        for name, (present, text) in self._symptoms(record, self._classes).items():
            self._seen[name] = self._seen.get(name, 0) + 1 if present else 0
            if self._seen[name] >= self._patience:
                warnings[name] = text
        return warnings
