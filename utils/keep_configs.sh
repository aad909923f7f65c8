# shellcheck shell=bash
# Sourced by prune.sh: exp/TAG/conf says what the tag was made with. A run here merges its configurations into it before its
# stages read them; those of a stage that doesn't come to its end, because it refused them, become again what they were.
# shellcheck disable=SC2154  # teacher_config and so on are prune.sh's

remember_configs() { # FOLDER: before its files are written
    configs_folder=$1
    configs_before=
    [[ -d $1 ]] || return 0
    configs_before=$(mktemp -d "$1.before.XXXX")
    cp -p "$1"/*.yaml "$configs_before"/ 2>/dev/null || true
    trap restore_configs EXIT
}

files_of_stage() { # NAME: of the configurations, as prune.sh has them
    case $1 in
        statistics | teacher) echo "$teacher_config" ;;
        score_teacher | score) echo "$decode_config" ;;
        prune) printf '%s\n' "$prune_config" "$systems_config" ;;
        finetune) printf '%s\n' "$finetune_config" "$systems_config" ;;
        cut | pack) echo "$systems_config" ;;
        profile) printf '%s\n' "$profile_config" "$systems_config" ;;
    esac
}

keep_configs() { # NAME: of a stage that came to its end
    local file
    [[ -n ${configs_before:-} ]] || return 0
    while read -r file; do
        if [[ -f $file && $file == "$(realpath -m "$configs_folder")"/* ]]; then cp -p "$file" "$configs_before"/; fi
    done < <(files_of_stage "$1")
}

restore_configs() { # when the run ends early
    [[ -n ${configs_before:-} ]] || return 0
    cp -p "$configs_before"/*.yaml "$configs_folder"/ 2>/dev/null || true
    forget_configs
}

forget_configs() { # when it has come to its end
    [[ -z ${configs_before:-} ]] || rm -rf "$configs_before"
    configs_before=
}
