#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command of less than nine minutes, on a machine without internet:
#
#     OUT=results bash bench/gpu_suite.sh
#
# GPU tests, kernels, loader, step, training end to end, the demonstration trained on the GPU, and with the time that is
# left the roofline. Each part has a time limit and may fail without stopping the next. Results go to $OUT (by default
# bench/results): one JSON per benchmark and gpu_suite.log; a short table comes last. Needs Python >= 3.11 with what
# pyproject.toml asks for, pytest and hypothesis; packages that were copied without what they depend on (six for DALI,
# yaml for webdataset, sortedcontainers for hypothesis) are named first. Without DALI or without NVIDIA's video-decode
# library the parts that decode say so. The checkout is used in place, nothing is installed.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(mkdir -p "${OUT:-bench/results}" && cd "${OUT:-bench/results}" && pwd)
export OUT PYTHONUNBUFFERED=1 COLUMNS=200
PYTHON=${PYTHON:-python3}

# `import unstill` without an installation: a folder with links to the four subpackages
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir "$site/unstill"
cp src/unstill/* "$site/unstill/"
for part in bench kernels pipeline trainer; do ln -s "$PWD/$part" "$site/unstill/$part"; done
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
unstill() { "$PYTHON" -P -c 'import sys; sys.argv[0] = "unstill"; from unstill.trainer.cli import main; main()' "$@"; }
export -f unstill
export PYTHON

summary=()
part() { # part NAME SECONDS COMMAND...: run one part within its time, remember how it ended
    local name=$1 limit=$2 start=$SECONDS code=0
    shift 2
    printf '\n=== %s (at most %s s)\n' "$name" "$limit"
    timeout --kill-after=10 "$limit" bash -c "$*" 2>&1 | tee "$site/$name.log" | tail -n 25
    code=${PIPESTATUS[0]}
    { printf '\n=== %s\n' "$name"; cat "$site/$name.log"; } >> "$OUT/gpu_suite.log"
    case $code in 0) word=passed ;; 124 | 137) word="stopped at its limit of $limit s" ;; *) word="failed ($code)" ;; esac
    summary+=("$(printf '%-12s %4d s  %s' "$name" $((SECONDS - start)) "$word")")
}

{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    echo "video-decode library (libnvcuvid):"
    ldconfig -p | grep -i nvcuvid || find / -xdev -name 'libnvcuvid.so*' 2> /dev/null || true
    "$PYTHON" -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)'
    "$PYTHON" -P - << 'PY'
import importlib

for name in "nvidia.dali.fn webdataset av numpy rich tyro matplotlib jinja2 PIL safetensors torchvision pytest hypothesis".split():
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"cannot be imported: {name} ({type(error).__name__}: {error})")
PY
} 2>&1 | tee "$OUT/gpu_suite.log"

work=$(mktemp -d)
part gpu_tests 75 'UNSTILL_REQUIRE_GPU=1 "$PYTHON" -P -m pytest -q -m gpu -p no:cacheprovider tests'
part kernel_tests 40 'UNSTILL_REQUIRE_GPU=1 "$PYTHON" -P -m pytest -q -m "not gpu" -p no:cacheprovider tests/kernels'
part kernels 75 'unstill bench kernels'
part loader 75 'unstill bench loader'
part step 100 'unstill bench step'
part train 75 "unstill bench train --no-baseline --videos '$work/videos'"
part demo 75 "unstill demo --device cuda --out '$work/demo' && cp '$work/demo/results.json' \"\$OUT/demo-gpu.results\""
left=$((530 - SECONDS)) # what the parts before have not used
((left < 20)) || part roofline "$left" "unstill bench roofline --videos '$work/videos'"
rm -rf "$work"

printf '\n%s\n' "results in $OUT:"
printf '  %s\n' "${summary[@]}" | tee -a "$OUT/gpu_suite.log"
