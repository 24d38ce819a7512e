"""The command files in examples/: every command is one that the command line takes, with recipes that exist.

Run from end to end on procedural videos in the layouts of the downloads where slow tests are run.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro

from unstill.pipeline.ood.build import OodConfig
from unstill.pipeline.ood.mask_check import MaskCheckConfig
from unstill.trainer.cli.main import COMMANDS, _load
from unstill.trainer.config import TrainConfig
from unstill.trainer.recipes import RECIPES

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(script, folder, **variables):
    """The command lines of a script, none of which is run."""
    for name in ("places365", "vqgan", "masks"):
        (folder / "downloads" / name).mkdir(parents=True)
    (folder / "data" / "hmdb51").mkdir(parents=True)
    (folder / "downloads" / "people.csv").touch()
    print_it = folder / "print_it"
    # evaluations leave predictions behind, which the script copies
    print_it.write_text(
        '#!/bin/sh\necho "$@" >> commands\nwhile [ $# -gt 1 ]; do if [ "$1" = --out ]; then\n'
        "mkdir -p $2/predictions; touch $2/predictions/a.npz; fi; shift; done\n"
    )
    print_it.chmod(0o755)
    environment = os.environ | {"UNSTILL": str(print_it)} | variables
    subprocess.run(["sh", EXAMPLES / script], cwd=folder, env=environment, check=True)
    return [shlex.split(line) for line in (folder / "commands").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["hmdb51.sh", "ucf101.sh", "transfer.sh"])
def test_every_command_is_one_that_is_taken(script, tmp_path):
    lines = printed(script, tmp_path, ENCODER="runs/encoder")
    used = set()
    for name, *arguments in lines:
        used.add(name)
        if name == "train":
            recipe, *rest = arguments
            config = tyro.cli(tyro.conf.AvoidSubcommands[TrainConfig], default=RECIPES[recipe](), args=rest)
            assert config.out.name.startswith(recipe)
        elif name == "ood":
            action, *rest = arguments
            tyro.cli(OodConfig if action == "build" else MaskCheckConfig, args=rest)
        else:
            tyro.cli(_load(COMMANDS[name].options), args=arguments)
    assert {"convert", "train"} | ({"transfer"} if script == "transfer.sh" else {"ood", "evaluate"}) <= used
    if script == "transfer.sh":
        assert len(lines) == 6 + 1 + 3 + 1  # three splits
    if script == "hmdb51.sh":
        trained = {arguments[0] for name, *arguments in lines if name == "train"}
        rows = {"mixup", "videomix", "sdn", "be", "actor_cutmix", "fame", "stillmix", "albar", "two_streams"}
        assert {f"hmdb51_{row}" for row in rows} <= trained
        assert used >= {"scene-labels", "still-bank"}


def test_only_what_is_asked_for(tmp_path):
    lines = printed("hmdb51.sh", tmp_path, METHODS="albar fame", SEEDS="4")
    assert [line[1:4] for line in lines if line[0] == "train"] == [
        ["hmdb51_albar", "--seed", "4"],
        ["hmdb51_fame", "--seed", "4"],
    ]
    assert not {"scene-labels", "still-bank"} & {line[0] for line in lines}
