#!/usr/bin/env bash
# Two losses on mini, three training seeds each, with equal steps, dropout and draws; then mini_losses.yaml compares
# them (docs/results/negative_aware.md). Needs what make_mini.sh leaves in runs/mini. About 20 minutes of one core for
# each of six adapters; begun again, it goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${BIN:-.venv/bin}/python"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
for seed in 0 1 2; do
  for objective in nft ppd; do
    folder="runs/mini/losses/$objective-$seed"
    [ ! -e "$folder/adapter.safetensors" ] || continue
    resume=()
    [ ! -e "$folder/checkpoint.pt" ] || resume=(--resume)
    "$python" -m training.train_dpo --config training/configs/mini_nft.yaml --objective "$objective" --seed "$seed" \
      --export_strength 1 --output_dir "$folder" ${resume[@]+"${resume[@]}"}
  done
done
"$python" -m training.rivals --config training/configs/mini_losses.yaml
