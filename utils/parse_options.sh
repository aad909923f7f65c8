# shellcheck shell=bash
# Options of a script, documented once: where they get their defaults.
#
# The script sets its options between the lines `# <options>` and `# </options>`, one a line, as
#     name=default    # what it is
# or as a comment alone for a heading, then sources this file and calls `parse_options "$@"`.
# `--name value` and `--name=value` set $name; `--help` prints the block; an unknown name is an error that names the
# nearest one. An option named in $option_flags may come without a value: true, and has no other than true and false.
# Whoever wraps the script may set `program` to the name that users know it by.

_option_lines() { sed -n '/^# <options>$/,/^# <\/options>$/p' "$0" | sed '1d;$d'; }

_option_names() { _option_lines | sed -n 's/^\([a-z_0-9]*\)=.*/\1/p'; }

print_options() {
    local line name text
    while IFS= read -r line; do
        if [[ $line == '# '* ]]; then
            printf '\n%s\n' "${line#'# '}"
        elif [[ $line == *=* ]]; then
            name=${line%%=*}
            text=
            if [[ $line == *' # '* ]]; then text=${line##*' # '}; fi
            printf '  --%-16s %s%s\n' "$name" "$text" "${!name:+ [${!name}]}"
        fi
    done < <(_option_lines)
}

nearest_word() { # WORD CANDIDATE...: the candidate most like it; nothing where none is, or without a Python
    local python
    for python in python3 "${root:-.}/.venv/bin/python"; do
        "$python" -c 'import difflib, sys
print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1, 0.5))' "$@" 2>/dev/null && return
    done
    return 0
}

option_error() {
    echo "error: $*" >&2
    echo "       ${program:-$0} --help lists the options" >&2
    exit 2
}

check_number() { # OPTION LEAST
    if [[ ! ${!1} =~ ^[0-9]{1,9}$ ]] || ((10#${!1} < $2)); then
        option_error "--$1: '${!1}' is not a whole number of at least $2"
    fi
}

check_seconds() { # OPTION
    [[ ${!1} =~ ^([0-9]+\.?[0-9]*|\.[0-9]+|inf)$ ]] || option_error "--$1: '${!1}' is not a number of seconds"
}

check_choice() { # OPTION WORD...
    local word others="${*:2:$#-2}"
    for word in "${@:2}"; do
        if [[ ${!1} == "$word" ]]; then return; fi
    done
    option_error "--$1: '${!1}' is not ${others// /, } or ${!#}"
}

parse_options() {
    local names name value nearest
    mapfile -t names < <(_option_names)
    while (($#)); do
        case $1 in
            --help | -h) usage; exit 0 ;;
            --*=*) name=${1%%=*}; value=${1#*=}; shift ;;
            --*)
                name=$1
                value=${2-}
                if [[ " ${option_flags-} " == *" ${name#--} "* && ! $value =~ ^(true|false)$ ]]; then
                    set -- "$name" true "${@:2}"
                    value=true
                fi
                if [[ " ${names[*]} " == *" ${name#--} "* ]] && (($# < 2)); then
                    option_error "$name needs a value"
                fi
                shift $(($# > 1 ? 2 : 1)) ;;
            *) option_error "unexpected argument '$1'" ;;
        esac
        if [[ " ${names[*]} " != *" ${name#--} "* ]]; then
            nearest=$(nearest_word "${name#--}" "${names[@]}")
            option_error "unknown option '$name'${nearest:+; did you mean --$nearest?}"
        fi
        printf -v "${name#--}" '%s' "$value"
    done
    for name in ${option_flags-}; do check_choice "$name" true false; done
}
