#!/usr/bin/env bash
# Makes virtual environments with PySpark and PyFlink in a folder (about 1.6 GB), for the tests that run the Spark and
# Flink SQL examples of docs/output-topic.md. They clash with each other and with this project's own packages.
# Needs CPython 3.10 to 3.12 and Java 17 or newer on the path.
# Usage: tools/other_clients.sh FOLDER     (then: OTHER_CLIENTS=FOLDER pytest tests/integration/test_output_contract.py)
set -euo pipefail

target=$(mkdir -p "${1:?usage: tools/other_clients.sh FOLDER}" && cd "$1" && pwd)
for client in spark:pyspark==4.1.1 flink:apache-flink==2.2.0; do
    "${PYTHON:-python3}" -m venv "$target/${client%%:*}"
    "$target/${client%%:*}/bin/python" -m pip install --quiet --disable-pip-version-check "${client#*:}"
done
echo "export OTHER_CLIENTS=$target"
