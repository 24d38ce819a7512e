"""What was compiled once is loaded by the next process: an ALBAR step with attention, its penalty included."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, logging, sys
import torch
from torch import nn
from torch._dynamo.utils import counters
from unstill.trainer.loss_module import LossModule, compile_loss
from unstill.trainer.methods import Albar
torch.set_num_threads(1)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Linear(64, 8), nn.Linear(8, 3)
    def forward(self, x):
        q = self.tokens(x.flatten(1).view(len(x), 12, 64))
        return self.head(nn.functional.scaled_dot_product_attention(q, q, q).mean(1))

logging.basicConfig(format="%(message)s", stream=sys.stderr)
logging.getLogger("unstill").setLevel(logging.INFO)
torch.manual_seed(0)
loss = LossModule(Net(), Albar(), torch.bfloat16, closed_calls=False)
compile_loss(loss, "default", announce=True)
motion = torch.randn(2, 3, 4, 8, 8)
value, _ = loss(motion, motion.clone().requires_grad_(), torch.tensor([0, 1]), True)
value.backward()
print(json.dumps({"counts": counters["aot_autograd"], "loss": value.item(),
                  "gradient": loss.model.head.weight.grad.sum().item()}))
"""


def start(cache: Path, **environment) -> subprocess.Popen:
    variables = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=variables, stdout=-1, stderr=-1, text=True)


def ended(process: subprocess.Popen) -> tuple[dict, str]:
    out, log = process.communicate(timeout=1200)
    assert process.returncode == 0, log
    return json.loads(out.splitlines()[-1]), log


@pytest.mark.slow
def test_ranks_of_one_machine_compile_once(tmp_path):
    both = [start(tmp_path, LOCAL_WORLD_SIZE="2") for _ in range(2)]
    runs = sorted((ended(process) for process in both), key=lambda run: run[0]["counts"].get("autograd_cache_hit", 0))
    (first, said), (second, said_again) = runs
    assert first["counts"].get("autograd_cache_miss") == 1, first
    assert second["counts"].get("autograd_cache_hit") == 1, second
    assert (first["loss"], first["gradient"]) == (second["loss"], second["gradient"])
    assert "operations: about" in said and "forward + backward" in said and f"kept in {tmp_path}" in said
    assert f"loaded from {tmp_path}" in said_again


def test_a_changed_derivative_is_compiled_again(tmp_path, monkeypatch):
    from unstill.trainer import compile_cache  # inductor: a second of every process that reads this file

    files = [tmp_path / part / "op.py" for part in ("kernels", "trainer")]
    for file in files:
        file.parent.mkdir()
        file.write_text("derivative = 1")
    monkeypatch.setattr(compile_cache, "__file__", str(tmp_path / "trainer" / "compile_cache.py"))
    digests = set()
    for file in (None, *files):
        if file is not None:
            file.write_text("derivative = 2")
        compile_cache.source_digest.cache_clear()
        digests.add(compile_cache.source_digest())
    compile_cache.source_digest.cache_clear()
    assert len(digests) == 3
