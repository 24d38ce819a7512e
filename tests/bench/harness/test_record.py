"""Result files carry what a reader needs to repeat the measurement, and every row as soon as it is measured."""

import json

import pytest

from unstill.bench.harness.record import ResultFile, quantiles, show, spread
from unstill.bench.harness.result_files import read_results
from unstill.bench.harness.row import Row
from unstill.pipeline.errors import InputError


def test_a_result_names_its_command_versions_and_machine(tmp_path):
    results = ResultFile("toy", out=tmp_path)
    results.add(Row(title="ours", **spread(quantiles([3.0, 1.0, 2.0])), unit="ms"))
    found = json.loads(results.path.read_text())
    assert results.path.name == f"toy-{found['device']}.json" and not found["complete"]
    assert found["command"] and found["versions"]["torch"] and found["machine"]["cores"] >= 1
    assert found["rows"] == [{"title": "ours", "value": 2.0, "unit": "ms", "p20": 1.4, "p80": 2.6}]
    results.note("a sentence")
    results.finish("in short")
    (read,) = read_results(tmp_path)
    assert (read.complete, read.summary, read.notes, read.rows) == (True, "in short", ["a sentence"], results.rows)


@pytest.mark.parametrize(
    ("value", "bound", "met"),
    [
        (9.0, {"at_least": 10.0}, False),
        (10.0, {"at_least": 10.0}, True),
        (9.0, {"at_most": 10.0}, True),
        (10.1, {"at_most": 10.0}, False),
        (None, {"at_most": 10.0}, False),
        (9.0, {}, None),
    ],
)
def test_a_row_knows_its_direction_and_whether_the_target_is_met(value, bound, met):
    row = Row(title="x", value=value, **bound)
    assert row.met is met and row.better == {"at_least": "higher", "at_most": "lower"}.get(next(iter(bound), ""), "")
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_rows_that_contradict_themselves_are_refused(tmp_path):
    for wrong in ({"at_least": 1.0, "at_most": 2.0}, {"at_least": 1.0, "better": "lower"}, {"facts": {"unit": "ms"}}):
        with pytest.raises(ValueError, match="row 'x'"):
            Row(title="x", **wrong)
    results = ResultFile("toy", out=tmp_path)
    results.add(Row(title="slow", value=3.0, at_most=2.0))
    results.path.write_text(results.path.read_text().replace('"met": false', '"met": true'))
    with pytest.raises(InputError, match="row 'slow' says met: True, its number says False"):
        read_results(tmp_path)


def test_a_table_wider_than_the_terminal_is_a_list(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    row = {"what": "transcode and check, H.264", **{f"a_long_name_{n}": 0.00033 + n for n in range(12)}}
    show("conversion", [row])
    printed = capsys.readouterr().out
    assert "transcode and check, H.264" in printed and "…" not in printed
    assert all(f"a long name {n} {0.00033 + n:.4g}" in printed for n in range(12))
    assert all(len(line) <= 80 for line in printed.splitlines())
    show("conversion", [{"what": "a", "value": 1.0}])
    assert "┃" in capsys.readouterr().out
