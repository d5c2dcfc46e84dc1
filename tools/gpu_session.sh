#!/usr/bin/env bash
# What needs a GPU and TensorRT: tests, plans' times and memory, topic to topic, swaps. Each call does the steps that are named.
#
# usage: tools/gpu_session.sh INPUTS OUT check tests topics        and so on:
#     check    85 s   versions, GPU, the names that the code uses of the libraries that are here
#     tests   240 s   tests/gpu but for the next three, and the contract suite on TensorRT
#     leaks   120 s   tests/gpu/test_tensorrt_leaks.py with few builds; alone on its GPU, whose memory it watches
#     build   400 s   tests/gpu/test_engine_build.py without `auto`: every precision built, proved and measured
#     auto    300 s   its `auto`: engine-build for MODEL (either data set's primary) within five minutes
#     models  480 s   every model in every precision, the engine against its bare plan, CUDA graphs; plans for the next three.
#                     MODELS (all) is a part of their names, BUILDERS (6) how many plans are built at a time
#     topics  120 s   50,000 events from topic to topic with the FP16 plan of MODEL (the primary)
#     swaps   480 s   a worker at full load on a broker, 100 swaps, one every 2 s, between the FP16 and INT8 plans of MODEL; batches
#                     of up to ROWS (4096, the worker's default)
#     bare    290 s   as many swaps in a process without a broker, which does nothing but batches of ROWS
#     broken  540 s   1,000 swaps in such a process, one in five to a broken version: memory; ends after MOST_S (500) s with what it
#                     has; alone on its GPU
#     builds  590 s   200 rounds of build, load, close; alone on its GPU
#     compare   5 s   PyTorch's times (INPUTS/timing-pytorch.json or OUT's, from tools/gpu_training.sh) beside TensorRT's
#
# INPUTS holds what a machine with data makes beforehand (some 33 MiB):
#     python -m bench events --out INPUTS/events.npz           the newest 50,000 events of FreshRetailNet
#     python -m demo.training precisions --out INPUTS/graphs   every model as an FP32, FP16 and INT8 graph, with real rows
# OUT gets session.log and a JSON file for each step; they belong into bench/results. WORK (default forecast-worker-gpu in the temporary folder) keeps plans
# from one call to the next.
#
# Needs, by the environment:
#     PY           Python >= 3.11 with TensorRT, cuda-python and this project's dependencies and pytest, hypothesis (default python3)
#     JAVA         a Java runtime, and KAFKA_LIBS a folder with Apache Kafka's jars, where nothing can be downloaded
#     GPU          index of the GPU to use (default 0); with WORK and OUT of their own two of these can run side by side
#
# PY needs these wheels beside TensorRT, numpy, onnx, onnxruntime, fastavro, confluent-kafka, prometheus-client and cuda-bindings:
#     pydantic pydantic-core annotated-types typing-inspection structlog rich markdown-it-py mdurl pygments pytest pluggy iniconfig
#     hypothesis sortedcontainers attrs cachetools authlib joserfc cryptography cffi pycparser certifi httpx2 httpcore2 h11 anyio idna
#     truststore watchfiles requests urllib3 charset-normalizer jgo cjdk progressbar2 python-utils psutil click semver tomli-w
#     pyarrow matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing python-dateutil
#
# A step that fails doesn't stop the others; the last lines say how each ended; the exit code is the number of those that failed.
set -u
[ $# -ge 3 ] || { sed -n '/^# usage/,/^#$/p' "$0" >&2; exit 64; }
mkdir -p "$2"
inputs=$(realpath -m "$1") out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/.."
: "${PY:=python3}" "${GPU:=0}" "${WORK:=${TMPDIR:-/tmp}/forecast-worker-gpu}"
: "${MODEL:=freshretailnet-transformer}" "${MODELS:=}" "${BUILDERS:=6}" "${ROWS:=4096}"
export PYTHONUNBUFFERED=1 CUDA_VISIBLE_DEVICES=$GPU CUDA_MODULE_LOADING=LAZY
mkdir -p "$WORK"
failed=0 summary=

step() { # NAME SECONDS COMMAND...
    local name=$1 limit_s=$2 began_s=$SECONDS code=0
    shift 2
    echo "== $name" | tee -a "$out/session.log"
    timeout --kill-after=10 "$limit_s" "$@" >"$WORK/log" 2>&1 || code=$?
    cat "$WORK/log" >>"$out/session.log"
    grep -v '^SKIPPED' "$WORK/log" | tail -n 24 | cut -c1-300
    cp "$WORK"/*.json "$out/" 2>/dev/null
    [ "$code" -eq 0 ] || failed=$((failed + 1))
    summary+=$(printf '%-8s exit %-4s %4d s   %s' "$name" "$code" $((SECONDS - began_s)) "$(grep -E ' (passed|failed|skipped)' "$WORK/log" | tail -n 1)")$'\n'
}

pytest=("$PY" -m pytest -q -p no:cacheprovider --tb=short --durations=5 -o faulthandler_timeout=200)

swaps() { # NAME SECONDS PYTHON...      between MODEL's plans, by a benchmark that takes --versions and --output
    local name=$1 limit_s=$2
    shift 2
    step "$name" "$limit_s" "$PY" "$@" --versions "$WORK/versions/$MODEL-fp16" "$WORK/versions/$MODEL-int8" --output "$WORK/$name-tensorrt.json"
}

check() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader
    "$PY" - <<'PYTHON'
import sys
from importlib.metadata import version
from engine_build.device import find_gpu, runtime_api
from engine_build.trt import NAMES, load_library
from worker.cuda import load_cuda
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("cuda-bindings", "numpy", "onnx", "onnxruntime")))
print(load_cuda().gpu(), load_cuda().memory(), find_gpu(runtime_api()))
found = [library for name in NAMES if (library := load_library(name)) is not None]
print(*(library.runtime for library in found))
sys.exit(0 if found else "neither tensorrt nor tensorrt_rtx can be imported")
PYTHON
}
export -f check
export PY

for name in "$@"; do
    case $name in
    check)
        step check 25 bash -c check
        step names 60 "${pytest[@]}" tests/contract/test_real_bindings.py tests/unit/test_build_trt*.py
        ;;
    tests) step tests 240 "${pytest[@]}" -v tests/gpu tests/contract/test_engine.py -k tensorrt --deselect tests/gpu/test_engine_build.py --deselect tests/gpu/test_tensorrt_leaks.py ;;
    leaks) step leaks 120 "${pytest[@]}" -s tests/gpu/test_tensorrt_leaks.py ;;
    build) step build 400 "${pytest[@]}" -v tests/gpu/test_engine_build.py -k 'not auto' ;;
    auto) step auto 320 "${pytest[@]}" -v tests/gpu/test_engine_build.py -k "auto and $MODEL" ;;
    models) step models 480 "$PY" -m bench tensorrt --graphs "$inputs/graphs" --only "$MODELS" --builders "$BUILDERS" --out "$WORK" ;;
    topics) step topics 120 "$PY" -m bench freshretailnet --events "$inputs/events.npz" --model "$WORK/versions/$MODEL-fp16" --output "$WORK/freshretailnet.json" ;;
    swaps) swaps swaps 480 -m bench swap-load --rows "$ROWS" --pairs 2 --without-s 20 --steady --events "$inputs/events.npz" ;;
    bare) swaps bare 290 -m bench.swaps_tensorrt --count 0 --rows "$ROWS" ;;
    broken) swaps broken 540 -m bench.swaps_tensorrt --swaps 0 --rows "$ROWS" --most-s "${MOST_S:-500}" ;;
    builds) GPU_BUILD_ROUNDS=200 step builds 590 "${pytest[@]}" tests/gpu/test_tensorrt_leaks.py -k building -s -o faulthandler_timeout=580 ;;
    compare)
        for place in "$inputs" "$out"; do # the newer run wins
            if [ -f "$place/timing-pytorch.json" ]; then cp "$place/timing-pytorch.json" "$WORK/"; fi
        done
        step compare 20 "$PY" -m bench.tensorrt_compare "$WORK"
        ;;
    *) echo "tools/gpu_session.sh: got step '$name', expected check, tests, leaks, build, auto, models, topics, swaps, bare, broken, builds or compare" >&2; exit 64 ;;
    esac
done
printf '\n%s\nsteps that failed: %d\n' "$summary" "$failed"
exit "$failed"
