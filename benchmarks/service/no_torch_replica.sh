#!/usr/bin/env bash
# Makes an environment as an API replica has it (`.[serve,production]`, no torch), starts a replica
# in it against a PostgreSQL and a Redis of its own, and asks it. `make no-torch` runs it.
set -euo pipefail
cd "$(dirname "$0")/../.."
BIN=${BIN:-.venv/bin}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$BIN/uv" venv --quiet --python "$("$BIN/python" -c 'import sys; print(sys.executable)')" "$folder/venv"
"$BIN/uv" pip install --quiet --python "$folder/venv/bin/python" -c requirements.lock \
  -r pyproject.toml --extra serve --extra production
PYTHONPATH=. "$BIN/python" benchmarks/service/no_torch_replica.py "$folder/venv/bin/python" "$folder/data"
