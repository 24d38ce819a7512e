"""Every committed launch configuration compiles for sm_90 on a machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unstill.kernels.launch_configs import (
    ATTENTION_TILES,
    BIASED_TILES,
    CLIP_TILES,
    MAX_BLOCK_C,
    clip_tile_for,
    row_block_for,
)

pytestmark = pytest.mark.slow  # every configuration is compiled, once

COMMITTED = Path(__file__).parents[2] / "bench" / "results" / "kernels_sm90.json"
MEASURED = {
    *("registers", "spill_store_bytes", "spill_load_bytes", "shared_bytes"),
    *("widest_store_bytes", "wgmma", "barriers", "sum_layouts"),
}
STEP_KERNELS = {"clip_prep", "gelu_second_order", "static_losses", "static_losses_backward", "step_boundary"}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    # in a process of its own: this one may have replaced Triton's compiler by its interpreter
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "unstill.kernels.aot"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_nothing_spills_and_occupancy_is_kept(rows):
    for row in rows:
        assert row["spill_store_bytes"] == row["spill_load_bytes"] == 0, row
        if row["kernel"] in STEP_KERNELS:
            assert row["registers"] <= 64, row  # four programs of 256 threads per multiprocessor, half of its threads
    assert {row["kernel"] for row in rows} == STEP_KERNELS | {f"attention_{name}" for name in ATTENTION_TILES}


def test_attention_multiplies_in_tensor_cores_and_shares_its_multiprocessor(rows):
    for row in rows:
        if row["kernel"].startswith("attention_"):
            assert row["wgmma"] > 0, row
            programs = min(
                65536 // (row["registers"] * 32 * row["num_warps"]), 227 * 1024 // (row["shared_bytes"] + 1024)
            )
            assert programs >= 2, row  # one computes while the other waits for its loads


def test_clip_prep_stores_what_its_table_says_and_converts_no_layout(rows):
    for row in rows:
        if row["kernel"] == "clip_prep":
            itemsize = 4 if row["dtype"] == "float32" else 2
            assert row["widest_store_bytes"] == row["vec"] * itemsize, row
            assert row["shared_bytes"] == 0, row  # loads and stores share one layout of threads


def test_losses_cost_the_clips_no_occupancy(rows):
    for row in rows:
        if row["kernel"] == "step_boundary" and row["classes"] == 400:
            alone = [
                other["registers"]
                for other in rows
                if other["kernel"] == "clip_prep"
                and all(other[key] == row[key] for key in ("crop", "dtype", "layout", "static"))
            ]
            assert row["registers"] <= max(alone) + 16, (row, alone)


def test_a_row_of_losses_waits_for_two_exchanges_between_its_warps(rows):
    """The maximum and then all sums at once, three barriers each; the gradient needs none."""
    for row in rows:
        if row["kernel"] in ("static_losses", "static_losses_backward"):
            assert row["barriers"] <= (6 if row["kernel"] == "static_losses" else 0), row


def test_sums_are_added_in_the_same_order_in_every_kernel(rows):
    """The interpreter cannot see this: a kernel that lays its rows out otherwise sums to other bits."""
    alone = {}
    for row in rows:
        options = tuple(row.get(key) for key in ("classes", "dtype", "soft", "smoothing"))
        if row["kernel"] == "static_losses":
            assert row["sum_layouts"] and alone.setdefault(options, row["sum_layouts"]) == row["sum_layouts"]
        if row["kernel"] == "step_boundary":
            assert row["sum_layouts"] == alone[options], row
    assert all("x256xf32, sizePerThread = [1, 1], threadsPerWarp = [1, 32]" in layouts for layouts in alone.values())


def test_every_tile_of_the_table_is_compiled(rows):
    compiled = {(row["block"], row["block_t"], row["vec"]) for row in rows if row["kernel"] == "clip_prep"}
    assert {tuple(tile) for table in CLIP_TILES.values() for _, tile in table} <= compiled
    assert {row["block_c"] for row in rows if "block_c" in row} >= {512, MAX_BLOCK_C}
    attention = {
        (row["kernel"], row["block_m"], row["block_n"], row["num_warps"], row["num_stages"])
        for row in rows
        if row["kernel"].startswith("attention_")
    }
    tiles = [(name, tile) for name, table in ATTENTION_TILES.items() for tile in table.values()]
    tiles += [(name, tile) for (name, _), tile in BIASED_TILES.items()]
    assert {(f"attention_{name}", *tile) for name, tile in tiles} == attention


def test_committed_report_is_of_the_current_table(rows):
    described = lambda rows: [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]  # noqa: E731
    report = json.loads(COMMITTED.read_text())
    compiled = [row for row in report["rows"] if "kernel" in row]  # the first rows are the worst of each kernel
    assert described(compiled) == described({"title": f"{row['kernel']}, one configuration"} | row for row in rows), (
        "run `unstill bench kernels` and commit the result"
    )
    assert report["versions"]["triton"] and report["commit"]


def test_tiles_fit_their_clips():
    for (channels_last, itemsize), table in CLIP_TILES.items():
        assert [least for least, _ in table] == sorted((least for least, _ in table), reverse=True) and table[-1][
            0
        ] == 0
        for elements in (1, 7, 1024, 50176, 3 * 50176, 73 * 73):
            for length in (1, 3, 32):
                tile = clip_tile_for(elements, length, itemsize, channels_last)
                assert elements % tile.vec == 0 and tile.frames < 2 * length
    assert [row_block_for(c) for c in (2, 256, 257, 400, 1001, 100_000)] == [256, 256, 512, 512, 1024, 1024]
