#!/usr/bin/env bash
# both.sh KEYSIDE FOLDER: runs the plaintext and the TLS configuration that prepare.py wrote, until it is stopped. The
# logs have a folder of their own: beside the key file, which is watched, every write would wake the watcher.
set -eu
mkdir -p "$2/log"
"$1" proxy --config "$2/plain.toml" > "$2/log/plain.log" 2> "$2/log/plain.err" &
"$1" proxy --config "$2/tls.toml" > "$2/log/tls.log" 2> "$2/log/tls.err" &
trap 'kill $(jobs -p) 2>/dev/null || true; wait' TERM INT
wait
