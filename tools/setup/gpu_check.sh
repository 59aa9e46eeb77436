#!/usr/bin/env bash
# Check the package on a GPU machine without a network, in parts.
#
#   tools/setup/gpu_check.sh OUT PART...
#
# PART: setup, tests, benchmark, rehearse; "all" is all of them in this order. A part that fails or
# exceeds its time limit does not stop the next one. A log of each part, the tables of the benchmark
# and summary.txt are written to OUT.
#
# WHEELS: the archive of carry_wheels.py (build/carry/wheels.tar.xz). PREFIX: where setup installs
# (build/gpu). PYTHON: the interpreter that has torch (python3). ROWS: configs, by default the four
# main ones. REHEARSE_ARGS: further arguments of tools/rehearse.py (--iters 150). LIMIT_SETUP, LIMIT_TESTS,
# LIMIT_BENCHMARK and LIMIT_REHEARSE (both per config): seconds.
set -uo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,8p' "$0" >&2
    exit 2
fi
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
shift
[ "$1" = all ] && set -- setup tests benchmark rehearse
cd "$ROOT" || exit 2
PREFIX=${PREFIX:-$ROOT/build/gpu}
PYTHON=${PYTHON:-python3}
ROWS=${ROWS:-configs/uld/mean_teacher_deeplesion.py
    configs/partial_label/faster_rcnn_3slice_neg_mask.py
    configs/partial_label/a3d_7slice_neg_mask.py
    configs/focalmix/focalmix_luna16_100.py}
SUMMARY=$OUT/summary.txt
export PYTHONUNBUFFERED=1
failed=0

# run NAME LIMIT COMMAND...: writes a log and a line of the summary.
run() {
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    echo "== $name (at most $limit s)"
    timeout -k 10 "$limit" "$@" 2>&1 | tee -a "$OUT/${name%%:*}.log"
    status=${PIPESTATUS[0]}
    case $status in
        0) result=ok ;;
        124 | 137) result="stopped after $limit s" ;;
        *) result="failed with status $status" ;;
    esac
    [ "$status" -eq 0 ] || failed=1
    echo "$name: $result, $((SECONDS - start)) s" | tee -a "$SUMMARY"
}

ready() {
    if [ ! -f "$PREFIX/env.sh" ]; then
        echo "$1: skipped, $PREFIX/env.sh does not exist: run setup first" | tee -a "$SUMMARY"
        failed=1
        return 1
    fi
    # shellcheck source=/dev/null
    . "$PREFIX/env.sh"
}

for part in "$@"; do
    case $part in
        setup)
            run setup "${LIMIT_SETUP:-580}" tools/setup/gpu_setup.sh \
                "${WHEELS:-build/carry/wheels.tar.xz}" "$PREFIX"
            # Carried with the other wheels, it saves the build on the next machine of this kind.
            find "$PREFIX/built" -name 'mmcv-*.whl' -exec cp {} "$OUT" \; 2> /dev/null
            gzip -c "$PREFIX/mmcv_build.log" > "$OUT/mmcv_build.log.gz" 2> /dev/null
            ;;
        tests)
            ready tests || continue
            # Other test files may require packages that were not carried.
            run tests "${LIMIT_TESTS:-180}" "$PYTHON" -m pytest tests -m gpu -rA \
                -p no:cacheprovider --continue-on-collection-errors
            ;;
        benchmark)
            ready benchmark || continue
            for row in $ROWS; do
                run "benchmark:$(basename "$row" .py)" "${LIMIT_BENCHMARK:-130}" "$PYTHON" \
                    tools/analysis_tools/benchmark.py gpu --config "$row" --out "$OUT" \
                    --data "$PREFIX/phantoms"
            done
            ;;
        rehearse)
            ready rehearse || continue
            for row in $ROWS; do
                name=$(basename "$row" .py)
                # shellcheck disable=SC2086
                run "rehearse:$name" "${LIMIT_REHEARSE:-140}" "$PYTHON" tools/rehearse.py "$row" \
                    --device cuda --out "$PREFIX/rehearsal/$name" ${REHEARSE_ARGS:---iters 150}
                cp "$PREFIX/rehearsal/$name/table.md" "$OUT/rehearse_$name.md" 2> /dev/null
            done
            ;;
        *)
            echo "$part: no such part" | tee -a "$SUMMARY"
            failed=1
            ;;
    esac
done
echo "== summary"
cat "$SUMMARY"
exit "$failed"
