# shellcheck shell=bash
# Sourced by prune.sh: this clone's Python environment, made at the first use.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
"$root/utils/setup_env.sh"
# shellcheck source=/dev/null
. "$root/.venv/bin/activate"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export PYTHONUNBUFFERED=1 # progress lines reach the terminal through a pipe
