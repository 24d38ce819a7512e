"""Blocks of a Markdown page that are written from data."""

import re
import sys

_BLOCK = re.compile(r"(<!-- begin ([\w: +-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def with_blocks(page: str, blocks: dict[str, str], name: str) -> str:
    """The page with its blocks filled; ends the program where a block has no content or no end."""
    begun = page.count("<!-- begin ")
    if begun != len(_BLOCK.findall(page)):
        sys.exit(f"{name}: a block that begins does not end")

    def filled(match: re.Match[str]) -> str:
        if match[2] not in blocks:
            sys.exit(f"{name}: nothing writes the block {match[2]!r}")
        return f"{match[1]}{blocks[match[2]].strip()}\n{match[3]}"

    return _BLOCK.sub(filled, page)


def table(heads: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text, the others numbers."""
    lines = [heads, ["---"] * left + ["---:"] * (len(heads) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" if line is not lines[1] else f"|{'|'.join(line)}|" for line in lines)


def while_true(condition: bool, sentence: str) -> str:
    """A sentence that holds for the committed results; what no longer holds is left out and named."""
    if condition:
        return sentence
    print(f"left out, because it no longer holds: {sentence}", file=sys.stderr)
    return ""


def paragraph(*sentences: str) -> str:
    """Sentences that are there, filled to 120 columns."""
    import textwrap

    text = " ".join(sentence for sentence in sentences if sentence)
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
