#!/usr/bin/env bash
# Everything that needs a GPU, in one call of about 8 minutes: tests, PyTorch's and TensorRT's times, memory, topic to topic.
#
# usage: tools/gpu_session.sh INPUTS OUT            all of it
#        tools/gpu_session.sh INPUTS OUT tests      or only the steps named: tests bench topics pytorch builds
#
# INPUTS holds what a machine with data makes beforehand (some 15 MiB):
#     python -m bench events --out INPUTS/events.npz           the newest 50,000 events of FreshRetailNet
#     python -m demo.training precisions --out INPUTS/graphs   every model as an FP32, FP16 and INT8 graph, with real rows
# OUT gets a log and JSON files for each step; they belong into bench/results.
#
# Needs, by the environment:
#     PY           Python >= 3.11 with TensorRT, cuda-python and this project's dependencies and pytest, hypothesis (default python3)
#     TORCH_PY     Python with PyTorch for CUDA (default python3); may be the same one
#     JAVA         a Java runtime, and KAFKA_LIBS a folder with Apache Kafka's jars, where nothing can be downloaded
#
# PY needs these wheels beside TensorRT, numpy, onnx, onnxruntime, fastavro, confluent-kafka, prometheus-client and cuda-bindings:
#     pydantic pydantic-core annotated-types typing-inspection structlog rich markdown-it-py mdurl pygments pytest pluggy iniconfig
#     hypothesis sortedcontainers attrs cachetools authlib joserfc cryptography cffi pycparser certifi httpx2 httpcore2 h11 anyio idna
#     truststore watchfiles requests urllib3 charset-normalizer jgo cjdk progressbar2 python-utils psutil click semver tomli-w
#
# A step that fails doesn't stop the others; the exit code is the number of those that failed.
set -u
cd "$(dirname "$0")/.."
inputs=$1 out=$2
shift 2
steps=${*:-tests bench topics pytorch}
: "${PY:=python3}" "${TORCH_PY:=python3}"
export PYTHONUNBUFFERED=1
mkdir -p "$out"
failed=0

step() { # NAME SECONDS COMMAND...
    local name=$1 limit_s=$2 began_s=$SECONDS code=0
    shift 2
    echo "== $name"
    timeout --kill-after=10 "$limit_s" "$@" >"$out/$name.log" 2>&1 || code=$?
    tail -n 25 "$out/$name.log"
    echo "== $name: exit $code after $((SECONDS - began_s)) s"
    [ "$code" -eq 0 ] || failed=$((failed + 1))
}

for name in $steps; do
    case $name in
    tests) step tests 210 "$PY" -m pytest tests/gpu tests/contract/test_engine.py -k tensorrt -q -p no:cacheprovider --durations=5 ;;
    bench) step bench 150 "$PY" -m bench tensorrt --graphs "$inputs/graphs" --out "$out" ;;
    topics) step topics 75 "$PY" -m bench freshretailnet --events "$inputs/events.npz" --model "$out/version" --output "$out/freshretailnet.json" ;;
    pytorch) step pytorch 120 "$TORCH_PY" -m demo.training.timing --only freshretailnet-transformer --out "$out" ;;
    builds) GPU_BUILD_ROUNDS=200 step builds 540 "$PY" -m pytest tests/gpu/test_tensorrt_leaks.py -k building -q -s -p no:cacheprovider ;;
    *) echo "tools/gpu_session.sh: got step '$name', expected tests, bench, topics, pytorch or builds" >&2; exit 64 ;;
    esac
done

if [ -f "$out/timing-pytorch.json" ] && [ -f "$out/timing-tensorrt.json" ]; then
    "$PY" -m bench.tensorrt_compare "$out"
fi
rm -rf "$out/version"
echo "steps that failed: $failed"
exit "$failed"
