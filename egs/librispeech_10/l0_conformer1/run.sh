#!/usr/bin/env bash
# L0 pruning of a small Conformer on 10 h of LibriSpeech, a subset by the lists in conf/chapters.
# `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck source=../../../utils/librispeech_options.sh
. "$root/utils/librispeech_options.sh"
parse_librispeech_options "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck disable=SC2154  # set by parse_librispeech_options
exec "$root/egs/TEMPLATE/prune1/prune.sh" \
    --corpus librispeech_10 \
    --local_data_cmd "$local_data_cmd" \
    --train_set train_10 --valid_set dev_clean_2 --test_sets "dev_clean_2 test_clean" \
    --speed_factors "0.9 1.0 1.1" --audio_format keep \
    --token_type bpe --vocab_size 198 \
    ${arguments[@]+"${arguments[@]}"}
