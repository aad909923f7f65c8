#!/usr/bin/env bash
# L0 pruning of a Conformer on a corpus that the flite voices speak: no download, no account, no GPU.
# `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD
if [[ ${1-} == --real ]]; then # the same of a model that people use: another recipe
    [[ -f ${2-} ]] || { echo "error: --real: '${2-}' is no file; give a .nemo archive of a Conformer-CTC" >&2; exit 2; }
    teacher=$(realpath "$2")
    exec "$(dirname "${BASH_SOURCE[0]}")/../../librispeech_1/l0_nemo_conformer1/run.sh" --teacher "$teacher" "${@:3}"
fi
if [[ " $* " == *" --help "* ]]; then
    echo "--real FILE.nemo   first of all: prune that Conformer on an hour of LibriSpeech (egs/librispeech_1) instead"
fi
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck disable=SC2016  # prune.sh expands $conf_dir when it runs the command
exec ../../TEMPLATE/prune1/prune.sh \
    --corpus synth \
    --local_data_cmd 'python -m espnet_prune prepare_synth --out data --config "$conf_dir/corpus.yaml"' \
    --train_set train --valid_set dev --test_sets test \
    --speed_factors "1.0" \
    --token_type bpe --vocab_size 75 \
    --train_nj 2 \
    "$@"
