#!/usr/bin/env bash
# Install what the GPU tests need on a machine with a GPU and no network.
#
#   tools/setup/gpu_setup.sh WHEELS [PREFIX]
#
# WHEELS is the archive of carry_wheels.py, or a folder of wheels and mmcv's source. Everything is
# written to PREFIX (build/gpu in the repository): site/, the packages; built/, the wheel of mmcv;
# env.sh, to be sourced. The machine's own Python and packages stay as they are.
#
# mmcv is compiled for the GPU of this machine only. If the script is repeated, ninja keeps compiled
# files, and the wheel is reused for the same torch and GPU. A wheel of mmcv in WHEELS is installed
# without compiling.
#
# PYTHON: the interpreter that has torch (python3). BUILD_LIMIT: seconds for mmcv (540).
# TORCH_CUDA_ARCH_LIST: set it to build where there is no GPU.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,4p' "$0" >&2
    exit 2
fi
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WHEELS=$1
mkdir -p "${2:-$ROOT/build/gpu}"
PREFIX=$(cd "${2:-$ROOT/build/gpu}" && pwd)
PYTHON=${PYTHON:-python3}
SITE=$PREFIX/site

say() { echo "== $*"; }
install() { "$PYTHON" -m pip --disable-pip-version-check install -q --no-index --no-deps \
    --no-cache-dir --upgrade --target "$SITE" "$@"; }

cat > "$PREFIX/env.sh" <<EOF
export PYTHONPATH="$SITE:$ROOT"
export PATH="$(dirname "$(command -v "$PYTHON")"):\$PATH"
EOF

if [ ! -f "$SITE/.complete" ]; then
    say "packages to $SITE"
    if [ -f "$WHEELS" ]; then
        mkdir -p "$PREFIX/wheels"
        tar -xf "$WHEELS" -C "$PREFIX/wheels"
        WHEELS=$PREFIX/wheels
    fi
    rm -rf "$SITE"
    # mmcv's setup.py imports pkg_resources, so setuptools below 81 is among the wheels.
    install "$WHEELS"/*.whl
    if ls "$WHEELS"/mmcv-*.tar.gz > /dev/null 2>&1; then
        rm -rf "$PREFIX/source"
        mkdir "$PREFIX/source"
        tar -xzf "$WHEELS"/mmcv-*.tar.gz -C "$PREFIX/source" --strip-components 1
    fi
    rm -rf "$PREFIX/wheels"
    touch "$SITE/.complete"
fi
# shellcheck source=/dev/null
. "$PREFIX/env.sh"

if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
    TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c 'import sys, torch
if not torch.cuda.is_available(): sys.exit("error: torch finds no GPU")
print(".".join(map(str, torch.cuda.get_device_capability())))')
fi
TAG=$("$PYTHON" -c 'import torch; print(torch.__version__)')-sm$TORCH_CUDA_ARCH_LIST
BUILT=$PREFIX/built/$TAG

if "$PYTHON" -c 'import mmcv.ops' 2> /dev/null && [ ! -d "$PREFIX/source" ]; then
    say "mmcv was installed from a wheel"
elif [ -f "$SITE/.mmcv-$TAG" ]; then
    say "mmcv is installed already"
else
    if ! ls "$BUILT"/mmcv-*.whl > /dev/null 2>&1; then
        command -v nvcc > /dev/null || [ -x /usr/local/cuda/bin/nvcc ] \
            || { echo "error: no nvcc in PATH or /usr/local/cuda/bin" >&2; exit 1; }
        command -v ninja > /dev/null || say "ninja is not installed: the build uses one core and takes hours"
        jobs=${MAX_JOBS:-$(nproc)}
        say "mmcv for $TAG with $jobs jobs; log: $PREFIX/mmcv_build.log"
        export TORCH_CUDA_ARCH_LIST MAX_JOBS=$jobs FORCE_CUDA=1 MMCV_WITH_OPS=1
        # Replaces Python's flags, whose debugging information makes up most of the wheel.
        export CFLAGS=${CFLAGS:--O3 -DNDEBUG -g0}
        start=$SECONDS
        # --no-cache-dir: pip's cache may contain a wheel for another GPU.
        if ! timeout "${BUILD_LIMIT:-540}" "$PYTHON" -m pip --disable-pip-version-check wheel -v \
            --no-build-isolation --no-deps --no-index --no-cache-dir -w "$BUILT" "$PREFIX/source" \
            > "$PREFIX/mmcv_build.log" 2>&1; then
            grep -E -m 20 'error:|Error:|FAILED:|fatal' "$PREFIX/mmcv_build.log" >&2 || true
            tail -n 20 "$PREFIX/mmcv_build.log" | cut -c -300 >&2
            compiled=$(find "$PREFIX/source/build" -name '*.o' 2> /dev/null | wc -l)
            echo "error: mmcv did not build in $((SECONDS - start)) s, $compiled files are" \
                "compiled; run again to go on" >&2
            exit 1
        fi
        say "built in $((SECONDS - start)) s"
    fi
    install "$BUILT"/mmcv-*.whl
    touch "$SITE/.mmcv-$TAG"
fi

say "check"
cd "$ROOT"
"$PYTHON" - <<'EOF'
import importlib
import sys

import torch

missing = []
for name in (
    "blosc2 cv2 jinja2 jsonschema matplotlib mmcv.ops mmdet mmengine nibabel numpy pycocotools "
    "pydicom pytest rich scipy SimpleITK tqdm"
).split():
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing.append(f"{name} ({error})")
if missing:
    sys.exit(f"error: cannot import {'; '.join(missing)}: carry_wheels.py --add")
import mmdet_lesion  # noqa: E402, F401

print("torch", torch.__version__, "mmcv", importlib.import_module("mmcv").__version__)
if torch.cuda.is_available():
    from mmcv.ops import nms, roi_align

    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]], device="cuda")
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device="cuda"), 0.5)[1].tolist()
    assert kept == [0, 2], kept
    rois = torch.tensor([[0, 0.0, 0, 8, 8]], device="cuda")
    roi_align(torch.rand(1, 1, 16, 16, device="cuda"), rois, 2, 1.0, 0, "avg", True)
    torch.cuda.synchronize()
    print("mmcv's operators run on", torch.cuda.get_device_name())
EOF
say "done: source $PREFIX/env.sh"
