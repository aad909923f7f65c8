# shellcheck shell=bash
# Sourced by prune.sh: how commands run. Each is called as `$train_cmd LOG COMMAND [ARGUMENT...]` and returns when the
# command has ended, with its exit status; export a program with this interface to run elsewhere.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
export train_cmd=${train_cmd:-$root/utils/run_local.sh}   # data, tokens, statistics, cutting, reports
export decode_cmd=${decode_cmd:-$root/utils/run_local.sh} # decoding, scoring, profiling
export cuda_cmd=${cuda_cmd:-$root/utils/run_local.sh}     # training, pruning, finetuning: with a GPU where --ngpu says
