"""Sums on the device, and a metrics file that a killed run cannot corrupt."""

import json

import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.methods import Albar, Baseline
from unstill.trainer.monitoring.config import LogConfig
from unstill.trainer.monitoring.metrics import Meter, MetricsFile, Writers
from unstill.trainer.monitoring.symptoms import SymptomWatch


def test_meter_averages_each_name_over_the_steps_that_had_it():
    meter = Meter(torch.device("cpu"))
    meter.add({"loss": torch.tensor(1.0), "gp": torch.tensor(8.0)})
    meter.add({"loss": torch.tensor(3.0)})
    copy = Meter(torch.device("cpu"))
    copy.load_state_dict(meter.state_dict())
    assert meter.take() == copy.take() == {"loss": 2.0, "gp": 8.0}
    assert meter.take() == {}


def test_a_resumed_file_drops_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n{"step": 6, "lo')
    file = MetricsFile(path, step=3)
    file.write({"step": 4, "loss": float("nan")})
    file.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 2, "loss": 1.0},
        {"step": 4, "loss": None},
    ]


def test_a_dead_logger_is_dropped_and_training_goes_on(tmp_path, caplog):
    class Dead:
        def write(self, record):
            raise ConnectionError("gone")

        def close(self):
            raise AssertionError("a dropped logger is not asked again")

    writers = Writers(MetricsFile(tmp_path / "metrics.jsonl"), [Dead()])
    writers.write({"step": 1})
    writers.write({"step": 2})
    writers.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert caplog.text.count("going on without it") == 1


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({"static_entropy": 0.5, "static_flip": 0.9}, "flipping"),
        ({"static_entropy": 0.01, "static_flip": 0.0, "epoch": 2.0}, "still frame"),
        ({"static_entropy": 1.0, "static_ce": 40.0}, "without bound"),
        ({"static_entropy": 1.0, "top1": 0.13, "epoch": 3.0}, "at chance"),
    ],
)
def test_collapse_is_named_while_it_lasts(record, word):
    watch = SymptomWatch(Albar().symptoms, classes=8)
    said = [watch.warnings(record) for _ in range(6)]
    assert [len(warnings) for warnings in said] == [0, 0, 1, 1, 1, 1]
    assert [word in text for text in said[2].values()] == [True] and said[2].keys() == said[5].keys()
    assert watch.warnings({"static_entropy": 2.0, "top1": 0.9, "epoch": 3.0}) == {}  # its cause is gone
    healthy = {"static_entropy": 2.0, "static_flip": 0.0, "static_ce": 2.1, "top1": 0.9, "epoch": 3.0}
    assert not any(SymptomWatch(Albar().symptoms, 8, patience=1).warnings(healthy) for _ in range(6))
    assert not SymptomWatch(Baseline().symptoms, 8, patience=1).warnings(record)  # the warnings are the method's own


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match=r"log\.every"):
        LogConfig(every=0)
