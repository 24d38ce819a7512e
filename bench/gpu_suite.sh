#!/usr/bin/env bash
# What only a GPU can tell, in three stages of less than nine minutes each, on a machine without internet:
#
#     OUT=results bash bench/gpu_suite.sh 1     facts and correctness: driver, codecs, GPU tests, kernels against float64
#     OUT=results bash bench/gpu_suite.sh 2     loader, kernels, roofline
#     OUT=results bash bench/gpu_suite.sh 3     the step, and training end to end: swin3d_t and r3d_18
#     bash bench/gpu_suite.sh --dry-run         the plan of all three, with seconds; needs no GPU
#
# bench/gpu_suite.py has the parts. Results go to $OUT (by default bench/results): one JSON per benchmark, written row by
# row, and gpu_suite.log. Videos and compiled code are kept in runs/gpu_suite (--kept FOLDER): give the same folder to
# each stage. The checkout is used in place and nothing is installed: $PYTHON (python3) must be 3.11 or newer and find
# what pyproject.toml asks for, pytest and hypothesis, by PYTHONPATH for example; what it cannot import is named first.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 COLUMNS=200

# `import unstill` without an installation: a folder with links to the four subpackages
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir "$site/unstill"
cp -r src/unstill/* "$site/unstill/"
for part in bench kernels pipeline trainer; do ln -s "$PWD/$part" "$site/unstill/$part"; done
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"

"$PYTHON" -P - << 'PY' || exit 2
import importlib
import sys

# those that are imported only when they are used, by packages that were copied without what they depend on
for name in "six torch torchvision triton nvidia.dali.fn webdataset yaml av numpy rich tyro matplotlib jinja2 PIL safetensors pytest hypothesis sortedcontainers".split():
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"cannot be imported: {name} ({type(error).__name__}: {error})")
sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed")
PY
"$PYTHON" -P -m unstill.bench.gpu_suite "$@"
