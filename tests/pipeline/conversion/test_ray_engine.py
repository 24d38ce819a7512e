"""Shards made by a Ray cluster are those of one machine, also when a node dies half way."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from unstill.pipeline.conversion.convert import convert
from unstill.pipeline.conversion.output import LocalOutput
from unstill.pipeline.errors import InputError


def contents(out: Path) -> dict[str, str]:
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_without_ray_the_error_says_what_to_install(class_folders, convert_config, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"unstill\[ray\]"):
        convert(convert_config(class_folders, tmp_path / "out", engine="ray"))


@pytest.mark.slow
def test_two_nodes_one_of_which_dies(class_folders, convert_config, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    config = convert_config(class_folders, tmp_path / "ray", engine="ray", samples_per_shard=1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        out = tmp_path / "ray" / "shards"

        def kill_after_two_shards() -> None:
            while not stop.wait(0.02):
                if len(list(out.glob("*.json"))) >= 2:
                    cluster.remove_node(second, allow_graceful=False)
                    killed.set()
                    return

        stop, killed = threading.Event(), threading.Event()
        killer = threading.Thread(target=kill_after_two_shards)
        killer.start()
        report = convert(config)
        stop.set()
        killer.join()
        assert killed.is_set() and report.complete
    finally:
        ray.shutdown()
        cluster.shutdown()
    for _ in range(600):  # workers of the killed node outlive it by a moment; the next run removes what they left
        LocalOutput(tmp_path / "ray").close()
        if not list(out.glob(".*.partial")):
            break
        time.sleep(0.1)
    convert(convert_config(class_folders, tmp_path / "local", samples_per_shard=1))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
