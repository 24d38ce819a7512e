"""Stages: done once, continued when interrupted, made anew when anything below them changes."""

import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.demo.stages import Stages

NAMES = ("one", "two")


def run(folder, log, settings=(1, 1), fail=None, fresh=False):
    stages = Stages(folder, NAMES, fresh)
    for name, value, after in (("one", settings[0], []), ("two", settings[1], ["one"])):
        out = folder / f"{name}.out"

        def work(name=name, out=out):
            out.mkdir(exist_ok=True)
            log.append((name, sorted(p.name for p in out.iterdir())))
            (out / "begun").touch()
            if fail == name:
                raise RuntimeError("killed")
            (out / "whole").touch()

        stages.run(name, {"value": value}, [out], work, after)
    return stages


def test_each_stage_is_done_once_and_timed(tmp_path):
    log = []
    first = run(tmp_path / "d", log)
    assert log == [("one", []), ("two", [])]
    again = run(tmp_path / "d", log)
    assert len(log) == 2 and again.seconds == first.seconds and list(again.seconds) == ["one", "two"]


def test_a_change_redoes_its_stage_and_all_that_build_on_it(tmp_path):
    log = []
    run(tmp_path / "d", log)
    run(tmp_path / "d", log, settings=(1, 2))
    assert log[2:] == [("two", [])]
    run(tmp_path / "d", log, settings=(2, 2))
    assert log[3:] == [("one", []), ("two", [])]
    run(tmp_path / "d", log, settings=(2, 2), fresh=True)
    assert log[5:] == [("one", []), ("two", [])]


def test_an_interrupted_stage_goes_on_with_what_is_there_and_a_lost_output_is_remade(tmp_path):
    log = []
    with pytest.raises(RuntimeError):
        run(tmp_path / "d", log, fail="two")
    run(tmp_path / "d", log)
    assert log == [("one", []), ("two", []), ("two", ["begun"])]
    with pytest.raises(RuntimeError):
        run(tmp_path / "d", log, settings=(1, 2), fail="two")
    run(tmp_path / "d", log, settings=(1, 3))  # other settings than the interrupted ones: from the start
    assert log[3:] == [("two", []), ("two", [])]
    for path in (tmp_path / "d/one.out").iterdir():
        path.unlink()
    (tmp_path / "d/one.out").rmdir()
    run(tmp_path / "d", log, settings=(1, 3))
    assert log[5:] == [("one", [])]


def test_a_damaged_record_repeats_and_a_foreign_folder_is_refused(tmp_path):
    log = []
    run(tmp_path / "d", log)
    (tmp_path / "d/stages.json").write_text("{")
    run(tmp_path / "d", log)
    assert len(log) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty and not made by this command"):
        run(tmp_path / "other", log)
    assert (tmp_path / "other/mine.txt").exists()
