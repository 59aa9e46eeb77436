#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# Starts GPUS processes on this node, on the CPU (gloo) without a GPU. For several nodes, run the same
# command on each with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (of node 0) and PORT set.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}"
exec "${PYTHON:-python}" "$TOOLS/dist_run.py" "$2" "$TOOLS/train.py" "$1" --launcher pytorch "${@:3}"
