# shellcheck shell=bash
# Sourced by prune.sh: this clone's Python environment, made at the first use. With ESPNET_PRUNE_CURRENT_ENV=1 the
# active environment is used instead, such as one of conda that has a PyTorch for this machine's GPU.
# A run.sh whose models are those of transformers exports ESPNET_PRUNE_EXTRA=hf: `setup_env.sh --hf` sets that extra up.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
if [[ ${ESPNET_PRUNE_CURRENT_ENV:-} != 1 ]]; then
    "$root/utils/setup_env.sh" ${ESPNET_PRUNE_EXTRA:+"--$ESPNET_PRUNE_EXTRA"}
    # shellcheck source=/dev/null
    . "$root/.venv/bin/activate"
fi
export PATH=$root/utils:$PATH # for the commands of cmd.sh
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} # this clone's package, whatever is installed
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export PYTHONUNBUFFERED=1 # progress lines reach the terminal through a pipe
