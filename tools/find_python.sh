# Prints the path of a CPython that can make the virtual environment: $1 if given, else the newest that is found.
# Exits 1 and says what is there if none is new enough.
set -eu

suits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython")' \
        >/dev/null 2>&1
}

if [ -n "${1:-}" ]; then
    if suits "$1"; then
        echo "$1"
        exit 0
    fi
    echo "PYTHON=$1 can't be used: got $("$1" --version 2>&1 || true), expected CPython 3.11 or newer with its venv module." >&2
    exit 1
fi

for python in python3.13 python3.12 python3.11 python3; do
    if suits "$python"; then
        command -v "$python"
        exit 0
    fi
done

echo "No usable Python: python3 is $(python3 --version 2>&1 || true), expected CPython 3.11 or newer with its venv module." >&2
echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.12 ..." >&2
exit 1
