#!/usr/bin/env bash
# Builds kcat with Avro and a schema registry's client into a folder, from the two projects' sources. Debian's own package
# has no Avro. What it needs of Debian or Ubuntu:
#   apt-get install gcc make pkg-config git libavro-dev librdkafka-dev libyajl-dev libjansson-dev libcurl4-openssl-dev
# Usage: tools/build_kcat.sh FOLDER     (then: FOLDER/bin/kcat -V)
# Mirrors of the sources, or local clones, may be named by KCAT_SOURCE and LIBSERDES_SOURCE.
set -euo pipefail

target=$(mkdir -p "${1:?usage: tools/build_kcat.sh FOLDER}" && cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

clone() { # clone SOURCE TAG COMMIT FOLDER: the tag must be that commit
    git clone --quiet --branch "$2" "$1" "$4" 2>/dev/null
    [ "$(git -C "$4" rev-parse HEAD)" = "$3" ] || { echo "$1: tag $2 isn't commit $3"; exit 1; }
}

clone "${LIBSERDES_SOURCE:-https://github.com/confluentinc/libserdes}" v7.4.8 d0edf2b1462ecf8ddcd27c9dda905b587297e73c "$work/libserdes"
clone "${KCAT_SOURCE:-https://github.com/edenhill/kcat}" 1.7.1 9ca33cdbb8cb1f762d118ef76f96711125ccb091 "$work/kcat"

cd "$work/libserdes"
./configure --prefix="$target" > made.log
make libs >> made.log 2>&1
make install >> made.log 2>&1 || [ -e "$target/lib/libserdes.so.1" ] # its last step names the tags of a C editor

cd "$work/kcat"
export CPPFLAGS="-I$target/include" CFLAGS="-I$target/include" LDFLAGS="-L$target/lib -Wl,-rpath,$target/lib"
./configure --prefix="$target" > made.log
make kcat >> made.log 2>&1 || [ -x kcat ]
install -D -m 755 kcat "$target/bin/kcat"
"$target/bin/kcat" -V | grep -q "Avro" || { echo "kcat was built without Avro; see what configure found:"; cat made.log; exit 1; }
"$target/bin/kcat" -V | tail -n 2
