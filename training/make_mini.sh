#!/usr/bin/env bash
# The whole recipe of the shipped `mini` weights, in order; about 4 hours of one core. Every stage
# resumes: run it again after an interruption.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${BIN:-.venv/bin}/python"
run="${RUN:-runs/mini}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

job() { # job NAME OUT [KEY VALUE ...]: start it, continue it, or pass it by when it is finished
  local name=$1 out=$2
  shift 2
  if [ -e "$out/finished" ]; then return; fi
  local resume=()
  if [ -e "$out/checkpoint.pt" ]; then resume=(--resume); fi
  "$python" -m "training.$name" --config "training/configs/mini_${name##*.}.yaml" \
    --out "$out" "$@" "${resume[@]}"
  touch "$out/finished"
}

mkdir -p "$run"
"$python" -m training.world.store --out "$run/world"
job pretrain.stage_a "$run/stage_a" --world "$run/world" &
job pretrain.compressor "$run/compressor" --world "$run/world"
wait $!
job pretrain.text_encoder "$run/text_encoder" --world "$run/world"
"$python" -m training.pretrain.latents --run "$run"
job pretrain.stage_b "$run/stage_b" --run "$run" &
stage_b=$!
job pretrain.stage_c "$run/stage_c" --run "$run"
wait $stage_b
