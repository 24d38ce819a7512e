"""``unstill completion bash|zsh``: a script in which commands, recipes, benchmarks and options are written out.

Nothing is started while somebody types: what there is to complete is read from this version once, when the script is
made. Everything else (paths) is left to the shell.
"""

import contextlib
import io
import re
from collections.abc import Iterable

from ...pipeline.errors import InputError
from .main import COMMANDS
from .main import run as run_command

SCRIPT = """# bash: unstill completion bash > ~/.local/share/bash-completion/completions/unstill
# zsh:  source <(unstill completion zsh)
_unstill() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} choices=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices="{commands}"
    elif [ "$COMP_CWORD" -eq 2 ] && [[ "$word" != -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{names}
        esac
    fi
    if [[ "$word" == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    fi
    [ -n "$choices" ] && COMPREPLY=($(compgen -W "$choices" -- "$word"))
    return 0
}}
complete -o default -F _unstill unstill
"""


def run(arguments: list[str]) -> int:
    """Print the script of a shell.

    Raises:
        InputError: another shell, or none.
    """
    if arguments in (["-h"], ["--help"]):
        print("usage: unstill completion bash|zsh\n\nbash: source <(unstill completion bash)")
        return 0
    if arguments not in (["bash"], ["zsh"]):
        raise InputError(f"expected bash or zsh, got {' '.join(arguments) or 'nothing'}: unstill completion bash")
    if arguments == ["zsh"]:
        print("autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit")
    print(script(), end="")
    return 0


def script() -> str:
    """The script of bash; zsh runs it, too."""
    from ..recipes import RECIPES
    from .diagnostics import QUESTIONS

    # named here, never imported by the trainer: bench -> trainer is the only direction
    names = {"train": list(RECIPES), "diagnose": list(QUESTIONS), "ood": ["build", "check"]}
    names |= {"bench": _names_in(_printed(["bench"])), "completion": ["bash", "zsh"]}
    options = {name: _options_of([name, "--help"]) for name in COMMANDS if name not in names}
    options["train"] = _options_of(["train", next(iter(RECIPES)), "--help"])
    return SCRIPT.format(
        commands=" ".join(COMMANDS),
        names=_cases(names),
        options=_cases(options),
    )


def _cases(choices: dict[str, list[str]]) -> str:
    return "\n".join(f'            {name}) choices="{" ".join(words)}" ;;' for name, words in choices.items())


def _options_of(arguments: list[str]) -> list[str]:
    return _unique(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", _printed(arguments)))


def _names_in(listing: str) -> list[str]:
    return _unique(re.findall(r"^  (\w+)  ", listing, re.MULTILINE))


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _printed(arguments: list[str]) -> str:
    """What a command prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        run_command(arguments)
    return text.getvalue()
