#!/usr/bin/env bash
# The numerical tests as other processors would run them: libraries are told to use less than this
# one has, or two threads. Two settings at a time, one line each; exits 1 if any fails.
#
#     tests/any_cpu.sh                 # all settings
#     tests/any_cpu.sh --cheapest      # two of them, as `make test` does
#     tests/any_cpu.sh oldest mkl-auto # these
#     tests/any_cpu.sh --list          # runs none: names and variables
#
# ATEN_CPU_CAPABILITY is torch's own instruction set, ONEDNN_MAX_CPU_ISA that of convolutions,
# MKL_CBWR and MKL_ENABLE_INSTRUCTIONS (which AMD's ignore) that of matrix products.
set -u
cd "$(dirname "$0")/.."
PYTHON="${BIN:-.venv/bin}/python"
FOLDER=tests/unit/ppd_model
TESTS=(
    $FOLDER/test_{adapter,decoder,diffusion,pipeline,previewer,response_norm}.py
    $FOLDER/test_{running_batch,same_picture,text_encoder,user_encoder}.py
    $FOLDER/test_engine.py::test_jobs_in_company_give_the_pictures_that_the_pipeline_gives
    $FOLDER/test_engine.py::test_a_job_may_ask_for_another_adapter
    $FOLDER/test_engine.py::test_a_decoder_out_of_memory_is_tried_in_halves_with_the_same_noise
    $FOLDER/test_published.py::test_a_published_folder_makes_the_picture_of_its_weights
    $FOLDER/test_published.py::test_{shards_make_the_same_picture,an_adapter_of_this_base_is_put_on_it}
    $FOLDER/test_published.py::test_where_a_tensor_lies_in_its_file_decides_nothing
    $FOLDER/test_published.py::test_the_{compressor_is_loaded_strictly,vlms_own_folder_will_do}
    $FOLDER/test_published.py::test_the_names_of_the_published_vision_tower_are_known
    tests/unit/training/test_loss.py
    --deselect "$FOLDER/test_user_encoder.py::test_torchvision_is_never_imported"
)
CHEAPEST=(oldest avx2)
ALL=(
    oldest avx2 two-threads oldest-two-threads
    aten-default aten-avx2 onednn-sse41 onednn-avx2 onednn-avx512 mkl-compatible mkl-avx2 mkl-auto
)

setting() {
    case "$1" in
    oldest) echo "ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE" \
        "MKL_ENABLE_INSTRUCTIONS=SSE4_2" ;;
    avx2) echo "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2" \
        "MKL_ENABLE_INSTRUCTIONS=AVX2" ;;
    two-threads) echo "OMP_NUM_THREADS=2" ;;
    oldest-two-threads) echo "$(setting oldest) OMP_NUM_THREADS=2" ;;
    aten-*) echo "ATEN_CPU_CAPABILITY=${1#aten-}" ;;
    onednn-sse41) echo "ONEDNN_MAX_CPU_ISA=SSE41" ;;
    onednn-avx2) echo "ONEDNN_MAX_CPU_ISA=AVX2" ;;
    onednn-avx512) echo "ONEDNN_MAX_CPU_ISA=AVX512_CORE" ;;
    mkl-*) echo "MKL_CBWR=$(echo "${1#mkl-}" | tr '[:lower:]' '[:upper:]')" ;;
    *) return 1 ;;
    esac
}

# A line for one setting; what pytest says only where it fails.
run_under() {
    local began=$SECONDS result=passed output
    # shellcheck disable=SC2046
    output=$(env OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(setting "$1") \
        "$PYTHON" -m pytest -q -p no:cacheprovider "${TESTS[@]}" 2>&1) || result=FAILED
    [ "$result" = passed ] || printf '%s\n' "$output" | tail -n 60 >&2
    printf '%s  %-18s  %3d s  %s\n' "$result" "$1" $((SECONDS - began)) "$(setting "$1")"
    [ "$result" = passed ]
}

case "${1-}" in
--one) run_under "$2"; exit ;;
--list)
    for name in "${ALL[@]}"; do echo "$name $(setting "$name")"; done
    exit
    ;;
--cheapest) names=("${CHEAPEST[@]}") ;;
"") names=("${ALL[@]}") ;;
*) names=("$@") ;;
esac
for name in "${names[@]}"; do
    setting "$name" >/dev/null || { echo "unknown setting $name; known: ${ALL[*]}" >&2; exit 2; }
done
printf '%s\n' "${names[@]}" | xargs -P 2 -n 1 tests/any_cpu.sh --one || exit 1
