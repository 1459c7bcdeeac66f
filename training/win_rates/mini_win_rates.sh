#!/usr/bin/env bash
# The paper's experiments with people (5.2) on mini: Figures 5 and 6, against Diffusion-DPO, SFT and the bound
# for any reader of the same answers. Needs what make_mini.sh leaves in runs/mini. Run it again after an
# interruption: what is finished is passed by, what was started continues.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${BIN:-.venv/bin}/python"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
for row in diffusion_dpo sft dpo_posterior; do
  folder="runs/mini/adapter_${row#dpo_}"
  resume=()
  [ ! -e "$folder/checkpoint.pt" ] || resume=(--resume)
  [ -e "$folder/adapter.safetensors" ] ||
    "$python" -m training.train_dpo --config "training/configs/mini_$row.yaml" ${resume[@]+"${resume[@]}"}
done
"$python" -m training.win_rates --config training/configs/mini_win_rates.yaml --resume
"$python" -m training.augmented_captions --config training/configs/mini_augmented_captions.yaml \
  --adapter runs/mini/adapter/adapter.safetensors \
  --diffusion_dpo_adapter runs/mini/adapter_diffusion_dpo/adapter.safetensors
