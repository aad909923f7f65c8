#!/usr/bin/env bash
# Self-pinching gates and L0 on Whisper, with real weights, finetuned on train-clean-5 of LibriSpeech.
# `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD ESPNET_PRUNE_EXTRA=hf
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck disable=SC2034  # read by parse_librispeech_options
debug_overrides=conf/debug/whisper debug_systems="unpruned pinch_30 pinch_weights_30"
# shellcheck source=../../../utils/librispeech_options.sh
. "$root/utils/librispeech_options.sh"
# shellcheck source=../../../utils/whisper_options.sh
. "$root/utils/whisper_options.sh"
parse_whisper_options "$@"
parse_librispeech_options ${arguments[@]+"${arguments[@]}"}
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck disable=SC2154  # set by parse_librispeech_options and parse_whisper_options
exec "$root/egs/TEMPLATE/prune1/prune.sh" \
    --corpus librispeech_10 \
    --local_data_cmd "$get_whisper_cmd && $local_data_cmd" \
    --train_set train_clean_5 --valid_set dev_clean_2 --test_sets "test_clean" \
    --speed_factors "" --audio_format keep --max_seconds 30 \
    --token_type hugging_face --tokenizer downloads/whisper --normalise english --compare_with "unpruned?" \
    ${arguments[@]+"${arguments[@]}"}
