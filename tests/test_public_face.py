"""What `import unstill` offers: the public names, without loading anything that they need."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import unstill

HEAVY = "{'torch', 'torchvision', 'triton', 'nvidia', 'numpy', 'matplotlib', 'jinja2', 'rich', 'tyro'}"


def test_importing_the_package_is_light():
    program = f"import sys, unstill; unstill.__version__, dir(unstill); found = {HEAVY} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{program}; sys.exit(str(found) if found else 0)"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", unstill.__all__)
def test_every_public_name_is_there(name):
    found = getattr(unstill, name)
    assert found.__name__ == name and found.__doc__ and name in dir(unstill)
    assert importlib.import_module(found.__module__).__dict__[name] is found


def test_editors_see_the_same_names():
    tree = ast.parse(Path(unstill.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom) and node.module]
    seen = {alias.name: str(node.module).removeprefix("unstill") for node in imports for alias in node.names}
    assert seen == unstill._MODULES and sorted(seen) == unstill.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_such"):
        unstill.nothing_such  # noqa: B018
