#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]; processes and nodes as in dist_train.sh
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of test.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}"
exec "${PYTHON:-python}" "$TOOLS/dist_run.py" "$3" "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
