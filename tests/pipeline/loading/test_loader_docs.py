"""The code of docs/loader.md and of the README's loader runs as it stands."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)


@pytest.mark.parametrize(("page", "least"), [("docs/loader.md", 5), ("README.md", 1)])
def test_the_code_on_the_page_runs(page, least, small_dataset, tmp_path, monkeypatch):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train").symlink_to(small_dataset)
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(page)
    assert len(blocks) >= least
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
