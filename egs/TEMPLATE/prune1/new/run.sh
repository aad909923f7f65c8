#!/usr/bin/env bash
# Pruning on a corpus of your own: Kaldi's data directories data/train, data/dev and data/test beside this file.
# `./run.sh --help` lists the options; those given there win over this file's.
set -euo pipefail

export program=$0 caller_dir=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"

# `true` makes nothing: stage 1 then checks the directories that are there. Put your own command in its place, such as
# "bash local/data.sh", and it makes them.
exec ../../TEMPLATE/prune1/prune.sh \
    --corpus "$(basename "$(dirname "$PWD")")" \
    --local_data_cmd true \
    --train_set train --valid_set dev --test_sets test \
    --speed_factors "1.0" --vocab_size 500 \
    "$@"
