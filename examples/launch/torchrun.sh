#!/bin/bash
# Train on one or several machines with torchrun. Give the same command on every machine, in any order:
#
#     NODES=2 FIRST=node-0:29400 examples/launch/torchrun.sh kinetics400_albar --data /shared/k400/train --out /shared/run
#
# NODES       machines, each with this command (default 1)
# FIRST       one of them and a free port on it; its loss ends the run, that of any other does not
# PROCESSES   processes on each machine: one for every GPU (default: gpu, which counts them)
# JOB         a name that runs at the same time do not share (default unstill)
#
# A process or machine that dies makes all processes start again from the newest checkpoint, at most RESTARTS times. A
# machine that is lost may be replaced by another one with the same command. All machines read the same --data and write
# to the same --out. --batch-size counts the clips of all processes together, so the number of machines changes nothing
# but the speed: a run may be continued with another number of processes.
set -euo pipefail

: "${NODES:=1}" "${FIRST:=localhost:29400}" "${PROCESSES:=gpu}" "${JOB:=unstill}" "${RESTARTS:=10}"

# torchrun's shared store would go on where it was, while a machine that replaces the first of them opens another one, and
# the processes wait for each other in two places (seen with torch 2.14): a new store for every attempt
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec torchrun --nnodes "$NODES" --nproc-per-node "$PROCESSES" --max-restarts "$RESTARTS" \
    --rdzv-backend c10d --rdzv-endpoint "$FIRST" --rdzv-id "$JOB" \
    --no-python unstill train "$@"
