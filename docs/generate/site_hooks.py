"""Hooks of mkdocs. Files outside docs/ that pages link to become part of the site, and links point to them there.

On GitHub a page links to ``../bench/results/demo.json`` or ``../SECURITY.md``. The site has them below ``repository/``.
Folders have no page in a site: their links become text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parents[1]
REPOSITORY = DOCS.parent
BELOW = "repository/"
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\]|!\[[^\]]*\]\([^)]*\))*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
ONE_PIECE = 36  # characters of code that fit in a line of 400 pixels
_CODE = re.compile(r"^```.*?^```|^    .*?$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked, and what the added pages link to."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    added: set[Path] = set()
    while pages:
        page = pages.pop()
        for target in _targets(page):
            if target in added or target.is_dir() or target.is_relative_to(DOCS):
                continue
            added.add(target)
            files.append(File.generated(config, _uri(target), abs_src_path=str(target)))
            if target.suffix == ".md":
                pages.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files into links within the site."""
    uri = page.file.src_uri
    here = REPOSITORY / uri.removeprefix(BELOW) if uri.startswith(BELOW) else DOCS / uri

    def moved(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = (here.parent / target).resolve()
        if path.is_dir():
            return text
        if not path.is_relative_to(REPOSITORY):
            return match[0]  # mkdocs says that it leads nowhere
        return f"[{text}]({posixpath.relpath(_uri(path), posixpath.dirname(uri))}{anchor or ''})"

    return _outside_code(markdown, lambda text: _LINK.sub(moved, text))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep names and options on one line: a browser would break them at hyphens, or anywhere in a narrow table."""
    return re.sub(rf"<code>(?=(?:&\w+;|[^\s<&]){{1,{ONE_PIECE}}}</code>)", '<code class="one-piece">', html)


def _uri(path: Path) -> str:
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return BELOW + path.relative_to(REPOSITORY).as_posix()


def _targets(page: Path) -> set[Path]:
    found: set[Path] = set()

    def collect(text: str) -> str:
        links = [match[2] for match in _LINK.finditer(text)]
        inner = re.findall(r"!\[[^\]]*\]\(([^()\s]+)\)", text)  # a picture within a link
        for target in links + inner:
            path = (page.parent / target).resolve()
            if not re.match(r"[a-z]+:", target) and path.exists() and path.is_relative_to(REPOSITORY):
                found.add(path)
        return text

    _outside_code(page.read_text(), collect)
    return found


def _outside_code(markdown: str, change) -> str:
    """The page, with everything but its code changed."""
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(markdown[end:])])
