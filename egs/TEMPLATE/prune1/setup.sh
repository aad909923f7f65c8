#!/usr/bin/env bash
# Makes the folder of a recipe on a corpus of your own.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: egs/TEMPLATE/prune1/setup.sh NAME [--imported]

Makes egs/NAME/prune1 with a run.sh and a conf/ of few updates to begin with. Put Kaldi's data directories train, dev
and test into egs/NAME/prune1/data, then start egs/NAME/prune1/run.sh.

  --imported  conf/ for a trained CTC model that `run.sh --teacher FILE` imports; otherwise run.sh trains a Conformer
EOF
}

fail() {
    echo "error: $*" >&2
    exit 2
}

name=
conf=conf
while (($#)); do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --imported) conf=imported ;;
        -*) fail "unknown option '$1'; setup.sh --help lists the options" ;;
        *) [[ -z $name ]] || fail "two names are given, '$name' and '$1'; give one"
            name=$1 ;;
    esac
    shift
done
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
    fail "'$name' is no name of letters, digits, '.', '_' and '-'; setup.sh --help says more"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
recipe=$here/../../$name/prune1
[[ ! -e $recipe ]] || fail "egs/$name/prune1 is there already; choose another name, or remove it"
mkdir -p "$recipe/data"
cp "$here/new/run.sh" "$recipe/"
cp -r "$here/new/$conf" "$recipe/conf"
cat <<EOF
egs/$name/prune1 is made. Next:
  1. put Kaldi's data directories train, dev and test into egs/$name/prune1/data
  2. egs/$name/prune1/run.sh$([[ $conf == conf ]] || echo " --teacher FILE")
EOF
