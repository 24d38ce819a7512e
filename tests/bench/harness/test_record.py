"""Result files carry what a reader needs to repeat the measurement."""

import json

from unstill.bench.harness.record import quantiles, record


def test_a_result_names_its_command_versions_and_machine(tmp_path):
    path = record("toy", [{"provider": "ours", **quantiles([3.0, 1.0, 2.0]), "unit": "ms"}], out=tmp_path, command="x")
    found = json.loads(path.read_text())
    assert path.name == f"toy-{found['device']}.json"
    assert found["command"] == "x" and found["versions"]["torch"] and found["machine"]["cores"] >= 1
    assert found["rows"] == [{"provider": "ours", "p20": 1.4, "p50": 2.0, "p80": 2.6, "unit": "ms"}]
