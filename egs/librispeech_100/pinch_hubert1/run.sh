#!/usr/bin/env bash
# One-pass compression of HuBERT by self-pinching gates, finetuned on 100 h of LibriSpeech.
# `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD ESPNET_PRUNE_EXTRA=hf
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck disable=SC2034  # read by parse_librispeech_options
debug_overrides=conf/debug/ssl debug_systems="pinch_50 pinch_weights_60 uniform_weights_60"
# shellcheck source=../../../utils/librispeech_options.sh
. "$root/utils/librispeech_options.sh"
parse_librispeech_options "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck disable=SC2154  # set by parse_librispeech_options
exec "$root/egs/TEMPLATE/prune1/prune.sh" \
    --corpus librispeech_100 \
    --local_data_cmd "$local_data_cmd" \
    --train_set train_clean_100 --valid_set dev --test_sets "dev_clean dev_other test_clean test_other" \
    --speed_factors "" --audio_format keep \
    --token_type char \
    ${arguments[@]+"${arguments[@]}"}
