#!/usr/bin/env bash
# Seconds from `make run` in a fresh clone of this checkout's commit until the service takes a generation.
# Say so where the machine is busy, or the packages are not in the caches of pip's and uv's index.
set -euo pipefail
port="${PORT:-8765}"
folder="$(mktemp -d)"
git clone -q "$(dirname "$0")/../.." "$folder/clone"
cd "$folder/clone"
started="$(date +%s.%N)"
setsid make run PORT="$port" DATA_DIR="$folder/data" >"$folder/log" 2>&1 &
service=$!
trap 'kill -- -"$service" 2>/dev/null; rm -rf "$folder"' EXIT
until curl -sf "http://127.0.0.1:$port/health/ready" >/dev/null 2>&1; do
  kill -0 "$service" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.2
done
echo "ready after $(echo "$(date +%s.%N) - $started" | bc) s"
