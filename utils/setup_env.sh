#!/usr/bin/env bash
# Makes the virtual environment .venv of this clone, once; later calls only compare a stamp.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: utils/setup_env.sh [--hf] [--test] [--slow]

Makes .venv in this clone with the exact package versions of utils/requirements/, and installs the Debian packages
that are missing where it may (root with apt-get). Cheap when there is nothing to do; safe to call concurrently and
after an interruption.

  --hf       also install the extra hf: transformers, for recipes of wav2vec 2.0, HuBERT and Whisper
  --test     also install what utils/run_tests.sh needs, the extra hf included
  --slow     all of this, and what tests marked slow need besides: CTranslate2, a Whisper, ESPnet's model zoo (125 MB)
  --help     this text

PYTHON=/path/to/python chooses the interpreter that .venv is made from (3.11 to 3.13; default: the first found).
EOF
}

with_hf=false
with_test=false
with_slow=false
while (($#)); do
    case $1 in
        --hf) with_hf=true ;;
        --test) with_hf=true with_test=true ;;
        --slow) with_hf=true with_test=true with_slow=true ;;
        --help | -h) usage; exit 0 ;;
        *) echo "error: unknown option '$1' (known: --hf, --test, --slow, --help)" >&2; exit 2 ;;
    esac
    shift
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
pins=$root/utils/requirements
log=$root/.setup_env.log
building=$venv/.building            # there while pip works: what it left after an interruption can't be trusted
apt_tried=$venv/.debian_packages_tried
test_apt_tried=$venv/.debian_test_packages_tried

say() { echo "setup: $*" >&2; }

fail() {
    echo "error: $*" >&2
    exit 1
}

fingerprint() { # of everything that decides what is in .venv
    (cd "$root" && { echo "$root"; cat "$@" setup.cfg pyproject.toml; } | sha256sum | cut -d ' ' -f 1)
}

is_current() { # STAMP FINGERPRINT
    [[ -x $venv/bin/python && ! -e $building && -f $1 && $(<"$1") == "$2" ]]
}

is_supported() { # PYTHON: a command of that name may exist and still not run
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

may_use_apt() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_install() { # PACKAGE...
    export DEBIAN_FRONTEND=noninteractive
    # no cluster of the machine's own: gridengine's packages would set one up and start it
    echo "gridengine-common shared/gridengineconfig boolean false" | debconf-set-selections 2>>"$log" || true
    apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 </dev/null ||
        { apt-get update -q >>"$log" 2>&1 </dev/null &&
            apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; }
}

choose_python() { # prints the interpreter that .venv is made from
    local candidate found=
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null && is_supported "$candidate"; then
            if has_venv "$candidate"; then echo "$candidate"; return; fi
            found=${found:-$candidate}
        elif [[ -n ${PYTHON:-} && $candidate == "$PYTHON" ]]; then
            fail "PYTHON=$PYTHON is not a working Python of version 3.11 to 3.13"
        fi
    done
    [[ -n $found ]] || fail "no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python"
    local package
    package=$("$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if may_use_apt; then
        say "installing the Debian package $package"
        apt_install "$package" || true
    fi
    has_venv "$found" || fail "$found has no venv module; install it (Debian: apt-get install $package)"
    echo "$found"
}

pip_install() { # WHAT ARGUMENTS...
    say "installing $1"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "${@:2}" >>"$log" 2>&1 </dev/null ||
        fail "pip could not install $1; its output is in $log (last line: $(tail -n 1 "$log"))"
}

make_venv() {
    if [[ -e $building ]]; then
        say "an earlier set-up was interrupted: starting anew"
        rm -rf "$venv"
    elif [[ -e $venv ]] && ! is_supported "$venv/bin/python"; then
        say ".venv has no working Python of version 3.11 to 3.13: making it anew"
        rm -rf "$venv"
    elif [[ -f $venv/.root && $(<"$venv/.root") != "$root" ]]; then
        say "this clone was moved here: making .venv anew"
        rm -rf "$venv"
    fi
    if [[ ! -e $venv ]]; then
        local python
        python=$(choose_python)
        say "making .venv with $("$python" --version)"
        mkdir -p "$venv"
        touch "$building"
        "$python" -m venv "$venv" >>"$log" 2>&1 || fail "$python -m venv failed; its output is in $log"
    fi
    touch "$building"
    echo "$root" >"$venv/.root"
    pip_install "PyTorch" -c "$pins/base.txt" -r "$pins/torch.txt"
    pip_install "the other packages" --no-deps -r "$pins/base.txt"
    pip_install "ESPnet" --no-deps --ignore-requires-python -r "$pins/espnet.txt"
    pip_install "espnet_prune" --no-deps --no-build-isolation -e "$root"
    echo "$base_fingerprint" >"$base_stamp"
    rm "$building"
}

addition_fingerprint() { fingerprint "${base_pins[@]}" "$pins/$1.txt"; } # NAME

addition_is_current() { is_current "$venv/.$1_stamp" "$(addition_fingerprint "$1")"; } # NAME

add_packages() { # NAME WHAT: those of requirements/NAME.txt
    ! addition_is_current "$1" || return 0
    touch "$building"
    pip_install "$2" --no-deps -r "$pins/$1.txt"
    addition_fingerprint "$1" >"$venv/.$1_stamp"
    rm "$building"
}

has_program() { # NAME: in the folders of system programs, too
    command -v "$1" >/dev/null || [[ -x /usr/sbin/$1 || -x /usr/lib/sctk/bin/$1 ]]
}

# Debian packages: the program that shows that it is there, the package, what it is for.
base_packages=(
    "flite flite generates the speech of egs/synth"
    "sclite sctk scoring by NIST's sclite; optional, there is a built-in scorer")
test_packages=(
    "munged munge tests of batch submission, with those below"
    "slurmctld slurmctld the same"
    "slurmd slurmd the same"
    "sbatch slurm-client the same; without it they are skipped"
    "sge_qmaster gridengine-master those on Grid Engine, with those below"
    "sge_execd gridengine-exec the same"
    "qconf gridengine-client the same; without it they are skipped")

packages_done() { # MARK ENTRY...
    local program entry
    [[ ! -e $1 ]] || return 0
    for entry in "${@:2}"; do
        read -r program _ <<<"$entry"
        has_program "$program" || return 1
    done
}

add_debian_packages() { # MARK ENTRY...
    local missing=() needed_for=() entry program package purpose
    for entry in "${@:2}"; do
        read -r program package purpose <<<"$entry"
        if ! has_program "$program"; then
            missing+=("$package")
            needed_for+=("$package: $purpose")
        fi
    done
    ((${#missing[@]})) || return 0
    if may_use_apt; then
        say "installing the Debian packages ${missing[*]}"
        apt_install "${missing[@]}" && return
        say "apt-get could not install them; its output is in $log"
    fi
    say "not on this machine (Debian: apt-get install ${missing[*]}; asked only once):"
    printf '         %s\n' "${needed_for[@]}" >&2
    touch "$1"
}

base_pins=("$pins"/{torch,base,espnet}.txt)
base_stamp=$venv/.base_stamp
base_fingerprint=$(fingerprint "${base_pins[@]}")

nothing_to_do() {
    is_current "$base_stamp" "$base_fingerprint" || return 1
    packages_done "$apt_tried" "${base_packages[@]}" || return 1
    [[ $with_hf == false ]] || addition_is_current hf || return 1
    [[ $with_test == true ]] || return 0
    addition_is_current test && packages_done "$test_apt_tried" "${test_packages[@]}" || return 1
    [[ $with_slow == false ]] || addition_is_current slow
}

nothing_to_do && exit 0

exec 9>"$root/.setup_env.lock"
if command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another set-up of this clone"
    flock 9
    nothing_to_do && exit 0
fi

: >"$log"
SECONDS=0
is_current "$base_stamp" "$base_fingerprint" || make_venv
packages_done "$apt_tried" "${base_packages[@]}" || add_debian_packages "$apt_tried" "${base_packages[@]}"
if [[ $with_hf == true ]]; then add_packages hf "transformers"; fi
if [[ $with_test == true ]]; then
    packages_done "$test_apt_tried" "${test_packages[@]}" ||
        add_debian_packages "$test_apt_tried" "${test_packages[@]}"
    add_packages test "the test tools"
fi
if [[ $with_slow == true ]]; then add_packages slow "what slow tests compare with"; fi
say "ready after $SECONDS s"
