#!/usr/bin/env bash
# The paper's experiments with synthetic users (5.1) on mini, in order: Table 1, Figures 3 and 4. Needs what
# make_mini.sh leaves in runs/mini (world, export). Run it again after an interruption: what is
# finished is passed by, what was started continues.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${BIN:-.venv/bin}/python"
run=runs/mini/synthetic
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
threads=(--threads "$OMP_NUM_THREADS")
synthetic() { "$python" -m training.synthetic_users "$1" --config "training/configs/mini_synthetic_$1.yaml" "${@:2}"; }

[ -e runs/mini/judge/picture_tower.safetensors ] ||
  "$python" -m training.rewards.picture_tower --run runs/mini --out runs/mini/judge
synthetic pairs --resume "${threads[@]}"
[ -e "$run/pairs/manifest.json" ] || synthetic relabel
for row in ppd sft dpo bound_alignment bound_warmth bound_detail; do
  resume=()
  [ ! -e "$run/$row/checkpoint.pt" ] || resume=(--resume)
  [ -e "$run/$row/adapter.safetensors" ] ||
    "$python" -m training.train_dpo --config "training/configs/mini_synthetic_$row.yaml" ${resume[@]+"${resume[@]}"}
done
synthetic evaluate --resume "${threads[@]}"
synthetic interpolate --resume "${threads[@]}"
