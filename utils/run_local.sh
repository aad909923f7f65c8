#!/usr/bin/env bash
# Runs a command on this machine: its output goes to the terminal and, after the command line, to the end of LOG.
set -euo pipefail

if (($# < 2)) || [[ $1 == --help ]]; then
    echo "usage: ${0##*/} LOG COMMAND [ARGUMENT...]"
    exit $(($# < 1 || $# > 1 ? 2 : 0))
fi
log=$1
shift
mkdir -p "$(dirname "$log")"
{ printf '# %s' "$(date '+%F %T')"; printf ' %q' "$@"; echo; } >>"$log"
# tee survives Ctrl-C, so that the log holds what the command says when it is interrupted.
"$@" 2>&1 | tee --ignore-interrupts -a "$log"
