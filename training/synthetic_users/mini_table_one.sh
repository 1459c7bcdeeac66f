#!/usr/bin/env bash
# The paper's experiments with synthetic users (5.1) on mini, in order: Table 1, Figures 3 and 4. Needs what
# make_mini.sh leaves in runs/mini (world, export). Run it again after an interruption: what is
# finished is passed by, what was started continues.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${BIN:-.venv/bin}/python"
run=runs/mini/synthetic
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
threads=(--threads "$OMP_NUM_THREADS")
synthetic() { "$python" -m training.synthetic_users "$1" --config "training/configs/mini_synthetic_$1.yaml" "${@:2}"; }

[ -e runs/mini/judge/picture_tower.safetensors ] ||
  "$python" -m training.rewards.picture_tower --run runs/mini --out runs/mini/judge
synthetic pairs --resume "${threads[@]}"
[ -e "$run/pairs/manifest.json" ] || synthetic relabel
train() { # row, steps, folder, further options
  local resume=()
  [ ! -e "$run/$3/checkpoint.pt" ] || resume=(--resume)
  [ -e "$run/$3/adapter.safetensors" ] ||
    "$python" -m training.train_dpo --config "training/configs/mini_synthetic_$1.yaml" \
      --steps "$2" --output_dir "$run/$3" ${resume[@]+"${resume[@]}"} "${@:4}"
}
for row in ppd sft dpo bound_alignment bound_warmth bound_detail; do
  train "$row" 215 "$row"
done
synthetic evaluate --resume "${threads[@]}"
synthetic interpolate --resume "${threads[@]}"

# PPD with three times the steps: each user's pairs are then met as often as by the model for that reward alone.
train ppd 645 ppd_645
if [ ! -e "$run/table_one_645/arms" ]; then
  mkdir -p "$run/table_one_645/arms"
  find "$run/table_one/arms" -type f ! -name 'ppd-*' -exec cp {} "$run/table_one_645/arms" \;
fi
synthetic evaluate --resume "${threads[@]}" --ppd "$run/ppd_645/adapter.safetensors" --out "$run/table_one_645"

# The paper's rule for beta (B.1): the run whose pictures of validation captions score highest.
train ppd 215 ppd_beta2 --beta 2.0
for row in ppd ppd_beta2; do
  synthetic score "${threads[@]}" --adapter "$run/$row/adapter.safetensors" --out "$run/$row/validation.json"
done
"$python" -m training.choose_beta "$run"/ppd/validation.json "$run"/ppd_beta2/validation.json --out "$run/choose_beta.json"
