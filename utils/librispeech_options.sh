# shellcheck shell=bash
# Sourced by the run.sh of LibriSpeech's recipes: their options beside those of prune.sh.
#
# `parse_librispeech_options "$@"` sets local_data_cmd, and arguments: what is left for prune.sh, which for --debug begins
# with what --debug stands for, so that the user's own options still win. A recipe with other models or systems names what
# --debug shall take in debug_overrides (a folder) and debug_systems.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

librispeech_usage() {
    cat <<'EOF'
--librispeech DIR  folder with LibriSpeech's parts (test-clean, ...), FLAC or Opus; without it, they are downloaded
--mirror URL       download from there instead of openslr.org
--skip_bad true    leave out damaged or missing files, listed in data/SET/skipped.txt, instead of stopping
--debug true       every stage on four chapters and a tiny model, in minutes, below debug/; without --librispeech, on
                   generated speech; --overrides conf/NAME is then conf/debug/NAME, such as transducer, where there is one
EOF
}

parse_librispeech_options() {
    local librispeech='' mirror='' skip_bad=false debug=false overrides='' name value
    arguments=()
    while (($#)); do
        case $1 in
            --librispeech=* | --mirror=* | --skip_bad=* | --debug=* | --overrides=*)
                name=${1%%=*}
                name=${name#--}
                value=${1#*=} ;;
            --debug | --skip_bad | --librispeech | --mirror | --overrides)
                name=${1#--}
                if [[ ($name == debug || $name == skip_bad) && ${2-} != true && ${2-} != false ]]; then
                    value=true # may come without a value
                else
                    value=${2-}
                    shift $(($# > 1))
                fi ;;
            *)
                if [[ $1 == --help || $1 == -h ]]; then librispeech_usage; fi
                arguments+=("$1")
                shift
                continue ;;
        esac
        # an empty one is that of a variable that isn't set
        [[ -n $value ]] || { echo "error: --$name needs a value" >&2; exit 2; }
        printf -v "$name" '%s' "$value"
        shift
    done
    for name in skip_bad debug; do
        [[ ${!name} == true || ${!name} == false ]] || { echo "error: --$name: '${!name}' is not true or false" >&2; exit 2; }
    done
    if [[ -n $librispeech ]]; then
        [[ -d $librispeech ]] || { echo "error: --librispeech: there is no folder '$librispeech'" >&2; exit 2; }
        librispeech=$(realpath "$librispeech")
    fi
    _set_data_command
    overrides=${overrides%/}
    if [[ $debug == true && -n $overrides && -d $root/conf/debug/${overrides##*/} ]]; then
        overrides=$root/conf/debug/${overrides##*/}
    fi
    if [[ -n $overrides ]]; then arguments+=(--overrides "$overrides"); fi
    if [[ $debug == true ]]; then
        arguments=(
            --work_dir debug --overrides "$root/${debug_overrides:-conf/debug/overrides}"
            --systems "${debug_systems:-l0_50 magnitude_50}"
            --train_set train --valid_set dev --test_sets test --speed_factors "0.9 1.0" --vocab_size 40
            ${arguments[@]+"${arguments[@]}"})
    fi
}

_set_data_command() { # by librispeech, mirror, skip_bad and debug
    # shellcheck disable=SC2016  # prune.sh expands $conf_dir and $nj when it runs the command
    local sets='"$conf_dir/data.yaml"' processes=' --nj "$nj"' debug_conf
    debug_conf=$(printf %q "$root/conf/debug")
    local_data_cmd=
    if [[ $debug == true && -z $librispeech ]]; then
        local_data_cmd="python -m espnet_prune generate_librispeech --out downloads/generated"
        local_data_cmd+=" --config $debug_conf/corpus.yaml && "
        librispeech=downloads/generated
        sets=$debug_conf/generated.yaml
    elif [[ $debug == true ]]; then
        sets=$debug_conf/librispeech.yaml
    fi
    local_data_cmd+="python -m espnet_prune prepare_librispeech --out data --sets $sets$processes"
    if [[ -n $librispeech ]]; then local_data_cmd+=" --librispeech $(printf %q "$librispeech")"; fi
    if [[ -n $mirror ]]; then local_data_cmd+=" --mirror $(printf %q "$mirror")"; fi
    if [[ $skip_bad == true ]]; then local_data_cmd+=" --skip_bad"; fi
}
