"""The completion script, in a real bash."""

import shutil
import subprocess

import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.cli import completion
from unstill.trainer.cli.help_texts import paragraphs


def completed(script: str, *words: str) -> set[str]:
    """What bash offers for the last word."""
    typed = " ".join(f"'{word}'" for word in ("unstill", *words))
    program = f"{script}\nCOMP_WORDS=({typed})\nCOMP_CWORD={len(words)}\n_unstill\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_commands_recipes_and_options_are_completed():
    script = completion.script()
    assert completed(script, "tr") == {"train"} and {"train", "convert", "bench"} <= completed(script, "")
    assert completed(script, "train", "own_s") == {"own_small", "own_small_albar"}
    assert "batch_size" in completed(script, "bench", "ba") and completed(script, "ood", "ch") == {"check"}
    assert {"--optimiser.lr", "--optimiser.lr-batch"} <= completed(script, "train", "own", "--optimiser.l")
    assert completed(script, "convert", "--short") == {"--short-side"}
    assert completed(script, "convert", "vide") == set()  # a path: the shell's own


def test_another_shell_is_refused():
    with pytest.raises(InputError, match="expected bash or zsh, got fish"):
        completion.run(["fish"])


def test_a_help_text_breaks_where_there_is_an_empty_line_alone():
    text = "One sentence that\n    goes on, `here`\n    and ``there``.\n\n    Another\n    one.\n\n    unstill train\n"
    assert paragraphs(text) == "One sentence that goes on, `here` and `there`.\n\nAnother one.\n\nunstill train"
