# shellcheck shell=bash
# Sourced by prune.sh: exp/TAG/conf and exp/TAG/SYSTEM/config.yaml say what the tag was made with. A run here writes its
# configurations into them before its stages read them; what no stage took, because one refused it or none ran, becomes again
# what it was. What a killed run left behind, the next one puts back.
# shellcheck disable=SC2154  # systems is prune.sh's

remember_configs() { # FOLDER: an experiment, before its files are written
    local file left
    configs_folder=$1
    [[ -d $1 ]] || return 0
    for left in "$1/.before.$HOSTNAME".*; do
        [[ ! -d $left ]] || kill -0 "${left##*.}" 2>/dev/null || put_back "$left"
    done
    configs_before=$1/.before.$HOSTNAME.$$
    mkdir "$configs_before"
    trap 'put_back "$configs_before"' EXIT
    for file in "$1"/conf/*.yaml "$1"/*/config.yaml; do
        [[ -f $file ]] || continue
        file=${file#"$1"/}
        mkdir -p "$configs_before/${file%/*}"
        cp -p "$configs_folder/$file" "$configs_before/$file.new" # whole or not at all
        mv "$configs_before/$file.new" "$configs_before/$file"
    done
}

forget_unchanged() { # after the files were written: another run here may change the rest
    local file
    [[ -n ${configs_before:-} ]] || return 0
    while IFS= read -r -d '' file; do
        ! cmp -s "$configs_before/$file" "$configs_folder/$file" || rm "$configs_before/$file"
    done < <(remembered "$configs_before")
}

remembered() { # FOLDER
    find "$1" -name '*.yaml' -printf '%P\0'
}

put_back() { # FOLDER of what was remembered
    local file
    while IFS= read -r -d '' file; do
        [[ ! -d $configs_folder/${file%/*} ]] || mv -f "$1/$file" "$configs_folder/$file" # removed since, to be made anew
    done < <(remembered "$1")
    rm -rf "$1"
}

files_of_stage() { # NAME
    local system
    case $1 in
        statistics | teacher) echo conf/teacher.yaml ;;
        score_teacher | score) echo conf/decode.yaml ;;
        profile) echo conf/profile.yaml ;;
        prune | finetune) # one file for both: what was finetuned before, only finetuning takes whole
            for system in $systems; do
                [[ $1 == prune && -e $configs_folder/$system/finetune ]] || echo "$system/config.yaml"
            done ;;
    esac
}

keep_configs() { # NAME: of a stage that came to its end
    local file
    [[ -n ${configs_before:-} ]] || return 0
    while read -r file; do rm -f "$configs_before/$file"; done < <(files_of_stage "$1")
}
