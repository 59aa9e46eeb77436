#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]
# GPUS (total), GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS configure srun; GPUS_PER_NODE=0 requests none.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
GPUS=${GPUS:-4}
GPUS_PER_NODE=${GPUS_PER_NODE:-4}
TASKS_PER_NODE=$((GPUS_PER_NODE > 0 ? GPUS_PER_NODE : GPUS))
export PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}"
# shellcheck disable=SC2086  # SRUN_ARGS contains several arguments
exec srun -p "$1" --job-name="$2" \
    $([ "$GPUS_PER_NODE" -gt 0 ] && echo "--gres=gpu:$GPUS_PER_NODE") \
    --ntasks="$GPUS" \
    --ntasks-per-node="$TASKS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
