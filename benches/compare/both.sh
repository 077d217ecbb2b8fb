#!/usr/bin/env bash
# both.sh KEYSIDE FOLDER: runs the plaintext and the TLS configuration that prepare.py wrote, until it is stopped.
set -eu
"$1" proxy --config "$2/plain.toml" > "$2/plain.log" 2> "$2/plain.err" &
"$1" proxy --config "$2/tls.toml" > "$2/tls.log" 2> "$2/tls.err" &
trap 'kill $(jobs -p) 2>/dev/null || true; wait' TERM INT
wait
