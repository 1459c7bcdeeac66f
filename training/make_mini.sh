#!/usr/bin/env bash
# The whole recipe of the shipped `mini` weights, in order. Run it again after an interruption:
# what is finished is passed by, what was started continues. Takes about five and a half hours of one core.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${BIN:-.venv/bin}/python"
run="${RUN:-runs/mini}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# job OUT MODULE CONFIG [--key value ...]: start a job, or continue it, unless it is finished
job() {
  local out=$1 module=$2 config=$3
  shift 3
  [ ! -e "$out/finished" ] || return 0
  local resume=()
  if compgen -G "$out/*checkpoint*" >/dev/null || [ -e "$out/manifest.json" ] || [ -e "$out/vision.pt" ] || [ -e "$out/language.pt" ]; then
    resume=(--resume)
  fi
  "$python" -m "training.$module" --config "training/configs/$config.yaml" "$@" ${resume[@]+"${resume[@]}"}
  touch "$out/finished"
}

"$python" -m training.world.store --out "$run/world"
world=(--world "$run/world")

(
  job "$run/stage_a" pretrain.stage_a mini_stage_a --out "$run/stage_a" "${world[@]}"
  job "$run/text_encoder" pretrain.text_encoder mini_text_encoder --out "$run/text_encoder" "${world[@]}"
  job "$run/vlm" pretrain.vlm mini_vlm --out "$run/vlm" "${world[@]}"
  job "$run/words" pretrain.words mini_words --out "$run/words" --vlm "$run/vlm/export" "${world[@]}"
) &
first=$!
job "$run/compressor" pretrain.compressor mini_compressor --out "$run/compressor" "${world[@]}"
wait $first

"$python" -m training.pretrain.latents --run "$run"
(
  job "$run/stage_b" pretrain.stage_b mini_stage_b --out "$run/stage_b" --run "$run"
  job "$run/decoder" pretrain.decoder mini_decoder --out "$run/decoder" --run "$run"
  job "$run/previewer" pretrain.previewer mini_previewer --out "$run/previewer" --run "$run"
  job "$run/classifier" content_classifier mini_classifier --output_dir "$run/classifier" --store_dir "$run/world"
) &
second=$!
job "$run/stage_c" pretrain.stage_c mini_stage_c --out "$run/stage_c" --run "$run"
wait $second

"$python" -m training.export --run "$run" --out "$run/export" --partial
[ -d "$run/preferences/data" ] ||
  "$python" -m training.world.export --out "$run/preferences" --store "$run/world" \
    --users 1600 --pairs 60
job "$run/precompute" precompute mini_precompute --output_dir "$run/precompute" \
  --data "$run/preferences/data" --truth "$run/preferences/truth.npz" --weights_dir "$run/export"
job "$run/adapter_nft" train_dpo mini_nft --output_dir "$run/adapter_nft" \
  --data_dir "$run/precompute" --stage_c "$run/export/stage_c.safetensors"
job "$run/adapter" train_dpo mini_dpo --output_dir "$run/adapter" \
  --data_dir "$run/precompute" --stage_c "$run/export/stage_c.safetensors"
"$python" -m training.export --run "$run" --out "$run/export"
job "$run/adapter_taste" train_dpo mini_dpo_taste --output_dir "$run/adapter_taste" \
  --data_dir "$run/precompute" --stage_c "$run/export/stage_c.safetensors"
"$python" -m training.evaluate --preset mini --weights_dir "$run/export" \
  --classifier "$run/classifier/classifier.safetensors" --probe_data "$run/precompute" \
  --taste_adapter "$run/adapter_taste/adapter.safetensors" --out "$run/evaluation"
echo "mini is in $run/export; ship it with: $python -m training.export --run $run --out ppd_model/mini"
