"""The launch files of examples/, as far as one machine without a GPU allows: two "machines" of two processes.

Slurm's commands are found on PATH, where a test puts stand-ins that start the processes as Slurm does.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.trainer.checkpoints.files import find_checkpoint
from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig

LAUNCH = Path(__file__).parents[1] / "examples" / "launch"
STEPS = 20
SAFETY_S = 1800  # no assertion depends on it
SRUN = """#!{python}
# two machines of two processes; the first argument is an option of srun
import os, signal, subprocess, sys

ranks = [{{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % 2)}} for rank in range(4)]
processes = [subprocess.Popen(sys.argv[2:], env=os.environ | rank) for rank in ranks]
# as scontrol signals every process of a step
signal.signal(signal.SIGTERM, lambda *_: [process.send_signal(signal.SIGTERM) for process in processes])
sys.exit(max(process.wait() for process in processes))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shards of 24 videos."""
    root = tmp_path_factory.mktemp("launch")
    write_motions(MotionsConfig(out=root / "videos", train=24, splits=("train",), workers=1))
    convert(ConvertConfig(source=root / "videos" / "train", out=root / "train", short_side=64, workers=1))
    return root / "train"


# each process waits for a signal: in step 5, or in step 9 once there is the file
WAIT_FOR_SIGNAL = """
import os, time
from unstill.trainer.checkpoints.preemption import StopRequest
from unstill.trainer.monitoring.run_monitor import RunMonitor
note, record, came = StopRequest._note, RunMonitor.record, []
def note_and_go_on(request, *arguments):
    note(request, *arguments)
    came.append(arguments)
def record_and_wait(monitor, state, *arguments):
    record(monitor, state, *arguments)
    while not came and state.step == (9 if os.path.exists(os.environ["PAST_STEP_5"]) else 5):
        time.sleep(0.02)
StopRequest._note, RunMonitor.record = note_and_go_on, record_and_wait
"""


@pytest.fixture
def environment(tmp_path, unstill):
    """Commands on PATH whose processes wait as above, and variables that keep four processes small."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "unstill": f'#!/bin/sh\nexec {unstill} "$@"\n',
        "srun": SRUN.format(python=sys.executable),
        "torchrun": f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n',
        "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n[ "$1" = show ] && echo localhost\nexit 0\n',
    }
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    # gloo would otherwise look the machine's name up
    one = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    waits = {"UNSTILL_BEFORE": WAIT_FOR_SIGNAL, "PAST_STEP_5": str(tmp_path / "past_step_5")}
    return kept | one | waits | {"PATH": f"{tools}:{os.environ['PATH']}"}


def options(data: Path, out: Path, *more: str) -> list[str]:
    """Steps in float64, a checkpoint every 4."""
    lengths = ["--batch-size", "12", "--epochs", str(STEPS * 12 / 24), "--checkpoint.every", "4", "--log.every", "1"]
    exact = ["--step.precision", "fp64", "--device", "cpu"]
    return ["demo_baseline", "--data", str(data), "--out", str(out), *lengths, *exact, *more]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def wait_for_step(out: Path, step: int, *processes: subprocess.Popen) -> None:
    """Wait until a run has logged a step."""
    deadline = time.monotonic() + SAFETY_S
    while time.monotonic() < deadline:
        metrics = out / "metrics.jsonl"
        if metrics.exists() and any(f'"step": {step},' in line for line in metrics.read_text().splitlines()):
            return
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.1)
    raise AssertionError(f"step {step} was never logged")


def wait_for_meeting_point(port: int, process: subprocess.Popen) -> None:
    """Wait until torchrun's store answers."""
    deadline = time.monotonic() + SAFETY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError("torchrun opened no meeting point")


@pytest.mark.slow
def test_a_slurm_job_that_is_preempted_is_queued_again_and_continues(data, tmp_path, environment):
    job = environment | {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NODELIST": "localhost", "SLURM_NTASKS": "4"}
    job |= {"SLURM_NTASKS_PER_NODE": "2"}
    out = tmp_path / "run"
    command = ["bash", LAUNCH / "slurm.sbatch", *options(data, out)]
    with open(tmp_path / "job.log", "w") as log:
        process = subprocess.Popen(command, env=job, stderr=log, stdout=log, start_new_session=True)
        wait_for_step(out, 5, process)
        # Slurm's --signal reaches the processes of the step, not the batch script
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        assert process.wait(timeout=SAFETY_S) == 75, (tmp_path / "job.log").read_text()[-3000:]
        assert f"requeue {job['SLURM_JOB_ID']}" in (tmp_path / "scontrol.log").read_text()
        saved = int(find_checkpoint(out).name[5:])
        assert saved == 8  # where the ranks agree on stopping
        again = subprocess.run(command, env=job, stderr=log, stdout=log, timeout=SAFETY_S)
    text = (tmp_path / "job.log").read_text()
    assert again.returncode == 0 and f"continuing at step {saved} of {STEPS}" in text, text[-3000:]
    assert "4 processes, each with cpu" in text


@pytest.mark.slow
def test_a_lost_machine_is_replaced_and_the_run_ends_as_an_undisturbed_one(data, tmp_path, environment):
    out, port = tmp_path / "run", free_port()
    machines = environment | {"NODES": "2", "FIRST": f"localhost:{port}", "PROCESSES": "2", "JOB": "pair"}
    command = ["bash", LAUNCH / "torchrun.sh", *options(data, out)]
    logs = [open(tmp_path / f"{name}.log", "w") for name in ("first", "lost", "new")]

    def machine(log):
        return subprocess.Popen(command, env=machines, stderr=log, stdout=log, start_new_session=True)

    first = machine(logs[0])
    started = [first]
    try:
        wait_for_meeting_point(port, first)  # on one machine the one that comes first would be it
        started.append(machine(logs[1]))
        wait_for_step(out, 5, *started)
        for process in family(started[1].pid):  # torchrun and its two processes at once
            os.kill(process, signal.SIGKILL)
        Path(environment["PAST_STEP_5"]).touch()
        started.append(machine(logs[2]))
        wait_for_step(out, 9, first, started[2])
        saved_by_all = int(find_checkpoint(out).name[5:])
        assert 4 <= saved_by_all < STEPS
        for process in (first, started[2]):
            process.send_signal(signal.SIGTERM)
        for process in (first, started[2]):
            process.wait(timeout=SAFETY_S)
    finally:
        for process in started:
            for member in family(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
        for log in logs:
            log.close()
    text = (tmp_path / "first.log").read_text()
    assert "4 processes, each with cpu" in text and "continuing at step" in text, text[-3000:]
    assert "memory: a step of 3 clips needs" in text  # planned for one process, in one of several
    saved = int(find_checkpoint(out).name[5:])
    assert 9 <= saved < STEPS, text[-3000:]
    # the rest with another number of processes, and all of it with one
    for folder in (out, tmp_path / "undisturbed"):
        assert run(["train", *options(data, folder)]) == 0
    expected, found = (
        load_file(find_checkpoint(folder) / "model.safetensors") for folder in (tmp_path / "undisturbed", out)
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


def family(pid: int) -> list[int]:
    """A process and all that it started, and they in turn."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid, *(member for child in found for member in family(int(child)))]


def test_the_kubernetes_job_starts_what_its_text_says():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    arguments = get_args_parser().parse_args(container["args"])
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    assert container["command"] == ["torchrun"] and arguments.training_script == "unstill" and arguments.no_python
    assert int(arguments.nnodes) == spec["completions"] == spec["parallelism"] > 1
    # pod 0's name in the service's domain: the Job's name, its index, and the subdomain
    host, _, port = arguments.rdzv_endpoint.partition(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}" and port.isdigit()
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"] and spec["completionMode"] == "Indexed"
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": job["metadata"]["name"]}} or (
        service["spec"]["clusterIP"] in (None, "None")
    )
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    recipe, *flags = arguments.training_script_args[1:]
    places = {flag.partition("=")[0]: flag.partition("=")[2] for flag in flags}
    from unstill.trainer.recipes import RECIPES

    assert recipe in RECIPES and arguments.training_script_args[0] == "train"
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(any(path.startswith(mount) for mount in paths) for path in places.values())
