#!/usr/bin/env bash
# L0 pruning of a Conformer on CMU's AN4: 948 training and 130 test utterances of spelled words and numbers.
# `./run.sh --help` lists the options; those given here win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD
an4=
arguments=()
while (($#)); do
    if [[ $1 == --an4=* ]]; then set -- --an4 "${1#*=}" "${@:2}"; fi
    case $1 in
        --an4) # an empty value is that of a variable that isn't set
            an4=${2-}
            [[ -n $an4 ]] || { echo "error: --an4 needs a folder" >&2; exit 2; }
            shift ;;
        --help | -h)
            echo "--an4 DIR: AN4, unpacked (with etc/ and wav/); without it, AN4 is downloaded from CMU"
            arguments+=("$1") ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
local_data_cmd="python -m espnet_prune prepare_an4 --out data"
if [[ -n $an4 ]]; then
    [[ -d $an4 ]] || { echo "error: --an4: there is no folder '$an4'" >&2; exit 2; }
    local_data_cmd+=" --an4 $(printf %q "$(realpath "$an4")")"
fi
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/prune1/prune.sh \
    --corpus an4 \
    --local_data_cmd "$local_data_cmd" \
    --train_set train_nodev --valid_set dev --test_sets test \
    --speed_factors "0.9 1.0 1.1" \
    --token_type bpe --vocab_size 30 \
    ${arguments[@]+"${arguments[@]}"}
