"""The code of docs/loader.md runs as it stands."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_the_code_on_the_page_runs(small_dataset, tmp_path, monkeypatch):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train").symlink_to(small_dataset)
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs/loader.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/loader.md", "exec"), names)
