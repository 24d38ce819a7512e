"""``unstill completion bash|zsh|fish``: prints what the shell needs to complete commands, recipes, benchmarks, options.

The printed script has all names in it, so that pressing the tab key starts no Python. The names are those of the
commands' own lists, options and their values those of ``--help``.
"""

import contextlib
import io
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...pipeline.errors import InputError
from .suggestions import unknown

FILES = {  # where a shell looks
    "bash": "~/.local/share/bash-completion/completions/unstill",
    "zsh": "FOLDER_OF_YOUR_FPATH/_unstill",
    "fish": "~/.config/fish/completions/unstill.fish",
}
# a line of --help that begins with options, and the values that they take
_OPTION = re.compile(
    r"^(?:│ | {1,3})?(?P<names>--?[a-zA-Z][\w.-]*(?:, --?[a-zA-Z][\w.-]*)*)(?: \[?\{(?P<values>[^}]*)\})?"
)


@dataclass(frozen=True)
class Place:
    """What can follow some words of a command line.

    Attributes:
        names: name -> what it is; of the next word.
        options: option -> its values, none where it takes a path or a number.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def run(arguments: list[str]) -> int:
    """``unstill completion SHELL``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: unstill completion bash|zsh|fish\n")
        for shell, file in FILES.items():
            print(f"  unstill completion {shell} > {file}")
        print("\nThen start a new shell. With a new version of unstill, write the file again.")
        return 0
    shell, *rest = arguments
    if shell not in WRITERS or rest:
        raise InputError(unknown("shell", " ".join(arguments), WRITERS, "unstill completion"))
    print(WRITERS[shell](places()), end="")
    return 0


def places() -> dict[str, Place]:
    """Words after ``unstill``, such as "" or "diagnose look" -> what can follow. "train *" is any recipe."""
    from ...trainer.recipes import RECIPES
    from .diagnostics import QUESTIONS
    from .main import COMMANDS
    from .main import run as run_command

    def options(*words: str) -> Place:
        return Place(options=_options(lambda: run_command([*words, "--help"])))

    found = {"": Place({name: command.summary for name, command in COMMANDS.items()}, {"--version": (), "--help": ()})}
    found |= {name: options(name) for name, command in COMMANDS.items() if command.options is not None}
    found["train"] = Place({name: _first_line(recipe.__doc__) for name, recipe in RECIPES.items()})
    found["train *"] = options("train", next(iter(RECIPES)))
    found["diagnose"] = Place({name: question.asks for name, question in QUESTIONS.items()})
    found["ood"] = Place({"build": "Cut people out and put them before other backgrounds.", "check": "Look at masks."})
    found["detect"] = Place({"fit": "Fit a linear layer on features of boxes.", "score": "Score any detector's boxes."})
    for first in ("diagnose", "ood", "detect"):
        found |= {f"{first} {second}": options(first, second) for second in found[first].names}
    found["bench"] = Place(_benches(lambda: run_command(["bench"])))
    found["completion"] = Place(dict.fromkeys(WRITERS, ""))
    return found


def _options(show_help: Callable[[], object]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in _printed(show_help):
        if match := _OPTION.match(line):
            values = tuple(value for value in (match["values"] or "").split(",") if value)
            found |= {name: values for name in match["names"].split(", ") if name.startswith("--")}
    return found


def _benches(show_list: Callable[[], object]) -> dict[str, str]:
    """From the list that `unstill bench` prints: nothing here may import the benchmarks."""
    lines = [re.match(r"  ([a-z_]+)  +(\S.*)", line) for line in _printed(show_list, columns=400)]
    return {match[1]: match[2].strip() for match in lines if match}


def _printed(show: Callable[[], object], columns: int = 100) -> list[str]:
    """Lines of what is printed; a help of 100 columns has its options below each other."""
    text, width = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            show()
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return text.getvalue().splitlines()


def _first_line(text: str | None) -> str:
    return (text or "").split("\n")[0].replace("``", "`")


def bash(found: Mapping[str, Place]) -> str:
    """A bash function that knows the place by the first words."""
    cases, values = [], []
    for place, what in found.items():
        words = shlex.quote(" ".join([*what.names, *what.options]))
        cases.append(f"    {_pattern(place)}) words={words} ;;")
        values += [_bash_values(place, option, of) for option, of in what.options.items() if of]
    both = "\n".join(case for case in cases)
    return f"""# bash completion for unstill
_unstill() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} place='' words=''
  (( COMP_CWORD > 1 )) && place=${{COMP_WORDS[1]}}
  case "$place" in
    {_nested(found, "|")}) (( COMP_CWORD > 2 )) && place+=" ${{COMP_WORDS[2]}}" ;;
  esac
  case "$place:$before" in
{chr(10).join(values)}
  esac
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  case "$place" in
{both}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ $current == -* ]] || COMPREPLY+=($(compgen -f -- "$current"))
}}
complete -o filenames -F _unstill unstill
"""


def _bash_values(place: str, option: str, values: Sequence[str]) -> str:
    return f"    {_pattern(place)}:{option}) words={shlex.quote(' '.join(values))} ;;"


def _nested(found: Mapping[str, Place], separator: str) -> str:
    """The commands that have places of two words."""
    return separator.join(dict.fromkeys(place.split()[0] for place in found if " " in place))


def _pattern(place: str) -> str:
    """Of a shell's ``case``."""
    return f"'{place[:-1]}'*" if place.endswith(" *") else f"'{place}'"


def zsh(found: Mapping[str, Place]) -> str:
    """A zsh function with descriptions."""
    cases, values = [], []
    for place, what in found.items():
        said = {name: words.replace(":", r"\:") for name, words in what.names.items()}
        names = " ".join(shlex.quote(f"{name}:{words}" if words else name) for name, words in said.items())
        options = " ".join(map(shlex.quote, what.options))
        cases.append(f"    {_pattern(place)}) names=({names}); flags=({options}) ;;")
        for option, of in what.options.items():
            if of:
                values.append(f"    {_pattern(place)}:{option}) compadd -- {shlex.join(of)}; return ;;")
    return f"""#compdef unstill
_unstill() {{
  local place='' before=${{words[CURRENT-1]}}
  local -a names flags
  (( CURRENT > 2 )) && place=${{words[2]}}
  case "$place" in
    {_nested(found, "|")}) (( CURRENT > 3 )) && place+=" ${{words[3]}}" ;;
  esac
  case "$place:$before" in
{chr(10).join(values)}
  esac
  case "$place" in
{chr(10).join(cases)}
  esac
  if (( $#names )); then _describe -t commands 'unstill' names; fi
  if [[ $PREFIX == -* || $#names -eq 0 ]]; then compadd -- $flags; fi
  if [[ $PREFIX != -* && $#names -eq 0 ]]; then _files; fi
}}
if [[ $funcstack[1] == _unstill ]]; then _unstill "$@"; else compdef _unstill unstill; fi
"""


def fish(found: Mapping[str, Place]) -> str:
    """Lines for fish, each with the place where it holds."""
    nested = _nested(found, " ")
    lines = [
        "# fish completion for unstill",
        "function __unstill_at",
        "  set -l words (commandline -opc)",
        "  set -l place ''",
        "  test (count $words) -gt 1; and set place $words[2]",
        f'  contains -- "$place" {nested}; and test (count $words) -gt 2; and set place "$place $words[3]"',
        '  string match -q -- $argv[1] "$place"',
        "end",
    ]
    for place, what in found.items():
        at = f"-n \"__unstill_at '{place}'\""
        for name, words in what.names.items():
            lines.append(f"complete -c unstill -f {at} -a {name} -d {_fish_text(words)}")
        for option, of in what.options.items():
            after = f" -x -a {_fish_text(' '.join(of))}" if of else ""
            lines.append(f"complete -c unstill {at} -l {option[2:]}{after}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


WRITERS: dict[str, Callable[[Mapping[str, Place]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
