#!/usr/bin/env bash
# Lint and tests, with everything they need set up first.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: utils/run_tests.sh [--all] [PYTEST ARGUMENT...]

Sets up .venv, then runs the linters (ruff, shellcheck, hadolint, codespell, mypy) and pytest in two processes; the first
failure of a linter ends it.

  --all    also run the tests marked slow; installs what some of them need, once: 125 MB, and Chromium
  --help   this text

Everything else goes to pytest: utils/run_tests.sh tests/gates -k hard_concrete
-n 0 runs the tests in one process, as a debugger needs it; -n 4 in four.
EOF
}

run_slow=false
arguments=()
for argument in "$@"; do
    case $argument in
        --help | -h) usage; exit 0 ;;
        --all) run_slow=true ;;
        *) arguments+=("$argument") ;;
    esac
done

# Paths among pytest's arguments are relative to this folder.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
needed=--test
if [[ $run_slow == true ]]; then needed=--slow; fi
utils/setup_env.sh "$needed"
export PATH=$PWD/.venv/bin:$PATH OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

ruff check --quiet .
ruff format --check --quiet . || { echo "error: not formatted: ruff format --diff . shows where" >&2; exit 1; }
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
shellcheck "${scripts[@]}"
hadolint --ignore DL3008 Dockerfile # versions of Debian packages: those of the base image, which is an argument
codespell
mypy >/dev/null || mypy
echo "lint: ruff, shellcheck (${#scripts[@]} scripts), hadolint, codespell and mypy found nothing"

markers="not gpu and not slow"
if [[ $run_slow == true ]]; then markers="not gpu"; fi
status=0
parallel=(-n 2 --dist loadgroup --no-loadscope-reorder) # tests/conftest.py says which tests stay together
python -m pytest -q "${parallel[@]}" -m "$markers" ${arguments[@]+"${arguments[@]}"} || status=$?
echo "ran: lint; pytest -m '$markers' ${arguments[*]-} (exit status $status)"
exit "$status"
