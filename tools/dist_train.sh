#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# GPUS processes on this node, on CPUs (gloo) where there is no GPU. Several nodes: the same command on
# each, with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (node 0) and PORT set.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
CONFIG=$1
GPUS=$2
export PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}"
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    NODES=(--standalone) # on a free port
else
    NODES=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi
exec "${PYTHON:-python}" "$TOOLS/dist_run.py" "${NODES[@]}" --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
