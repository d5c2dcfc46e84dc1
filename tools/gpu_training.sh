#!/usr/bin/env bash
# What needs a GPU and PyTorch, in one call of about 5 minutes: training the primary model anew, and PyTorch's times.
#
# usage: tools/gpu_training.sh INPUTS OUT              both
#        tools/gpu_training.sh INPUTS OUT train        or only the steps named: train train-bakery pytorch pytorch-primary
#
# INPUTS holds what such a machine can't download (some 18 MiB):
#     freshretailnet_daily.parquet     the daily file, or the original's
#     cache/forecast-worker/ddop-0.7.6 the bakery's two CSV files, as `python -m demo` keeps them below XDG_CACHE_HOME
#     whl/*.whl                        what its Python lacks, for its version: pydantic pydantic-core annotated-types typing-inspection
#                                      typing-extensions structlog fastavro rich markdown-it-py mdurl pygments
# OUT gets session-training.log, timing-pytorch.json, and for each trained model its report, retrained-<data>.json.
#
# Needs, by the environment: TORCH_PY, a Python >= 3.11 with PyTorch for CUDA, numpy, pyarrow, onnx and onnxruntime (default python3);
# GPU, the index of the one to use (default 0); ONLY, a part of the names of the models to time (default all). For a rehearsal without one: DEVICE=cpu, and TRAIN for more options of `train`.
#
# `train` fails unless the new model's metrics on the test days are within 2 % of the committed one's. A step that fails doesn't stop
# the others; the exit code is the number of those that failed.
set -u
[ $# -ge 2 ] || { echo "usage: tools/gpu_training.sh INPUTS OUT [steps]; the head of this file says more" >&2; exit 64; }
mkdir -p "$2"
inputs=$(realpath "$1") out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/.."
steps=${*:-train pytorch}
: "${TORCH_PY:=python3}" "${GPU:=0}" "${DEVICE:=cuda}" "${TRAIN:=}" "${ONLY:=}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1 CUDA_VISIBLE_DEVICES=$GPU OMP_NUM_THREADS=4 TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$work/inductor}
export TORCHINDUCTOR_COMPILE_THREADS=8 # leave cores to what is measured beside this
export XDG_CACHE_HOME=$inputs/cache FRESHRETAILNET_PARQUET=$inputs/freshretailnet_daily.parquet PYTHONPATH=$PWD
if ls "$inputs"/whl/*.whl >/dev/null 2>&1; then
    "$TORCH_PY" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" "$inputs"/whl/*.whl
    export PYTHONPATH=$PWD:$work/site
fi
failed=0 summary=

step() { # NAME SECONDS COMMAND...
    local name=$1 limit_s=$2 began_s=$SECONDS code=0
    shift 2
    echo "== $name" | tee -a "$out/session-training.log"
    timeout --kill-after=10 "$limit_s" "$@" >"$work/log" 2>&1 || code=$?
    cat "$work/log" >>"$out/session-training.log"
    tail -n 22 "$work/log" | cut -c1-300
    [ "$code" -eq 0 ] || failed=$((failed + 1))
    summary+=$(printf '%-18s exit %-4s %4d s' "$name" "$code" $((SECONDS - began_s)))$'\n'
}

train() { # DATA
    # shellcheck disable=SC2086 # TRAIN holds several words
    "$TORCH_PY" -m demo.training train --data "$1" --out "$work/$1" --device "$DEVICE" $TRAIN || return
    cp "$work/$1/report.json" "$out/retrained-$1.json"
    "$TORCH_PY" -m demo.training compare --report "$work/$1/report.json"
}
export -f train
export TORCH_PY DEVICE TRAIN work out

for name in $steps; do
    case $name in
    train) step "$name" 420 bash -c 'train freshretailnet' ;;
    train-bakery) step "$name" 420 bash -c 'train bakery' ;;
    pytorch-primary) step "$name" 150 "$TORCH_PY" -m demo.training timing --only freshretailnet-transformer --out "$out" ;;
    pytorch) step "$name" 480 "$TORCH_PY" -m demo.training timing --only "$ONLY" --out "$out" ;;
    *) echo "tools/gpu_training.sh: got step '$name', expected train, train-bakery, pytorch or pytorch-primary" >&2; exit 64 ;;
    esac
done
printf '\n%s\nsteps that failed: %d\n' "$summary" "$failed"
exit "$failed"
