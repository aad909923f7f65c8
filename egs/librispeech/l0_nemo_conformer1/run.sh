#!/usr/bin/env bash
# Pruning of a real Conformer-CTC, NVIDIA NeMo's stt_en_conformer_ctc_small, on all 960 h of LibriSpeech and on GPUs: paper 1's
# experiment on a model that people use. Give the archive with --teacher FILE.nemo (medium and large ones, too); without it,
# the hub is asked for it by name.
# `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck disable=SC2034  # read by parse_librispeech_options
debug_systems="l0_50 fisher_50"
# shellcheck source=../../../utils/librispeech_options.sh
. "$root/utils/librispeech_options.sh"
parse_librispeech_options "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck disable=SC2154  # set by parse_librispeech_options
exec "$root/egs/TEMPLATE/prune1/prune.sh" \
    --corpus librispeech \
    --local_data_cmd "$local_data_cmd" \
    --train_set train_960 --valid_set dev --test_sets "dev_clean dev_other test_clean test_other" \
    --speed_factors "1.0" --audio_format keep --text_case lower \
    --teacher nvidia/stt_en_conformer_ctc_small --compare_with "unpruned? l0_30? l0_50? l0_70?" \
    ${arguments[@]+"${arguments[@]}"}
