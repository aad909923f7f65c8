#!/usr/bin/env bash
# A real Conformer-CTC, NVIDIA NeMo's stt_en_conformer_ctc_small, pruned by an hour of LibriSpeech: minutes, and a first
# impression. egs/librispeech_10/l0_nemo_conformer1 does it in earnest. Give the archive with --teacher FILE.nemo;
# without it, the hub is asked for it by name. `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck source=../../../utils/librispeech_options.sh
. "$root/utils/librispeech_options.sh"
parse_librispeech_options "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck disable=SC2154  # set by parse_librispeech_options
exec "$root/egs/TEMPLATE/prune1/prune.sh" \
    --corpus librispeech_1 \
    --local_data_cmd "$local_data_cmd" \
    --train_set train --valid_set dev --test_sets test \
    --speed_factors "1.0" --audio_format keep --text_case lower \
    --teacher nvidia/stt_en_conformer_ctc_small \
    ${arguments[@]+"${arguments[@]}"}
