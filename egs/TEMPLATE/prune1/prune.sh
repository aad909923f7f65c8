#!/usr/bin/env bash
# The staged driver of every recipe: from data to a report on pruned models. A recipe's run.sh chooses the options.
set -euo pipefail

# <options>
# What to run
stage=1                          # first stage: a number or a name of --list_stages
stop_stage=14                    # last stage: a number or a name
skip_stages=                     # stages to leave out, such as "2 profile"
list_stages=false                # true: print the stages and end
ngpu=0                           # GPUs for training; 0 trains on the CPU
nodes=1                          # machines for each training, with --ngpu GPUs each; more than 1 needs slurm
nj=                              # parallel jobs for data and decoding; default: one for each processor of this machine
train_nj=1                       # systems trained at a time on the processors of this machine, without GPUs
cmd_backend=local                # local, or submit every command to slurm or sge and return (cmd.sh, conf/)
wait=false                       # true: having submitted, wait for the end; Ctrl-C then cancels the jobs
# Where
work_dir=                        # where data, dump and exp are made, relative to the recipe's folder; default: there
tag=base                         # name of the experiment: exp/TAG
# Data
corpus=                          # name of the corpus in the report
local_data_cmd=                  # command that makes data/SET for the sets below (stage 1)
train_set=train                  # set to train on
valid_set=dev                    # set to choose checkpoints by
test_sets="test"                 # sets to score
speed_factors="0.9 1.0 1.1"      # speeds of the training set; "1.0" for none but the original
channel=                         # which of several channels is taken, from 1, or mean; default: several are refused
pipes=run                        # commands in wav.scp: run, or forbid
fix_data=false                   # true: leave out what can't be used; data/SET/left_out.txt lists it
audio_format=flac                # flac, ark, or keep: the recordings as they are
min_seconds=0.1                  # shorter utterances of the training and validation sets are left out
max_seconds=30                   # longer ones too
token_type=bpe                   # bpe, char, or hugging_face
vocab_size=30                    # number of BPE tokens
tokenizer=                       # with hugging_face: the pretrained Whisper's name or folder
normalise=none                   # texts before they are scored: none, or english (Whisper's rules)
scorer=                          # what counts errors: sclite, alignment or jiwer; default: sclite where it is installed
text_case=keep                   # transcripts as they are: keep; or lower, or upper, as a teacher's tokens may need
# Systems
teacher=                         # a trained model instead: an ESPnet experiment's folder, its zip, a .nemo file, a hub's name
systems=                         # systems to make, such as "l0_50 magnitude_50"; default: all of systems_config
compare_with=                    # systems to compare the others with besides the teacher; "NAME?": if it is there
# Configurations: YAML files, relative to the recipe's folder
conf_dir=conf                    # where those stand that are not named here
systems_config=                  # methods, targets and seeds; default: CONF_DIR/systems.yaml, and so on
teacher_config=                  # model and training of the teacher
prune_config=                    # learning the masks
finetune_config=                 # training after the cut
decode_config=                   # decoding
profile_config=                  # measuring size and speed
overrides=                       # folder of YAML files whose keys win over those of the same names above
# </options>

stage_names=(data speed format tokens statistics teacher score_teacher prune cut finetune score profile report pack)
stage_titles=("prepare and validate the data" "perturb the speed of the training set"
    "format the audio, filter by length" "make the token list" "collect statistics" "train the teacher"
    "decode and score the teacher" "prune: learn the masks" "cut" "finetune the cut models" "decode and score"
    "profile size and speed" "report" "pack")
last_stage=${#stage_names[@]}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
recipe_dir=${recipe_dir:-$PWD} # run.sh changes to it and may export it
program=${program:-$0}
# shellcheck source=../../../utils/parse_options.sh
. "$root/utils/parse_options.sh"

list_stages() {
    local n
    for n in $(seq "$last_stage"); do
        printf '%3d  %-14s %s\n' "$n" "${stage_names[n - 1]}" "${stage_titles[n - 1]}"
    done
}

usage() {
    echo "usage: $program [--OPTION VALUE]..."
    echo "Runs the recipe's stages; what is done already is skipped, so the same command resumes."
    print_options
    printf '\nStages\n'
    list_stages
}

stage_number() { # OPTION NUMBER_OR_NAME
    local n nearest
    for n in $(seq "$last_stage"); do
        if [[ $2 == "$n" || $2 == "${stage_names[n - 1]}" ]]; then
            echo "$n"
            return
        fi
    done
    nearest=$(nearest_word "$2" "${stage_names[@]}")
    option_error "--$1: '$2' is no stage: 1 to $last_stage or a name of --list_stages${nearest:+, such as $nearest}"
}

there() { # PATH: absolute if it is there, seen from where the user is; else as given, seen from the recipe
    if [[ -n $1 && $1 != /* && -e ${caller_dir:-$PWD}/$1 ]]; then
        realpath -s "${caller_dir:-$PWD}/$1"
    else
        echo "$1"
    fi
}

config() { # NAME [FILE]: the absolute path of the file, by default that of CONF_DIR
    local file
    file=$(there "${2-}")
    realpath -m "${file:-$conf_dir/$1.yaml}"
}

option_flags="list_stages wait fix_data"
parse_options "$@"
if [[ $list_stages == true ]]; then list_stages && exit 0; fi

first=$(stage_number stage "$stage")
last=$(stage_number stop_stage "$stop_stage")
skipped=" "
for name in $skip_stages; do skipped+="$(stage_number skip_stages "$name") "; done
((first <= last)) || option_error "--stage $stage comes after --stop_stage $stop_stage"
check_number ngpu 0
check_number nodes 1
nj_reason="--nj"
if [[ -z $nj ]]; then
    nj=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # which nproc would count by
    nj_reason="this machine's processors"
fi
check_number nj 1
check_number train_nj 1
check_number vocab_size 2
check_seconds min_seconds
check_seconds max_seconds
check_choice cmd_backend local slurm sge
((nodes == 1)) || [[ $cmd_backend == slurm ]] ||
    option_error "--nodes $nodes: trainings on several machines need --cmd_backend slurm, not $cmd_backend"
# on GPUs systems follow each other, and a cluster runs them at a time by itself
[[ $cmd_backend == local && $ngpu == 0 ]] || train_nj=1
check_choice audio_format flac ark keep
check_choice pipes run forbid
[[ $channel =~ ^(|mean|[1-9][0-9]*)$ ]] || option_error "--channel: '$channel' is not mean, or a number from 1"
check_choice token_type bpe char hugging_face
check_choice normalise none english
check_choice text_case keep lower upper
[[ -z $scorer ]] || check_choice scorer sclite alignment jiwer
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] ||
    option_error "--tag: '$tag' is not a folder's name of letters, digits, '.', '_', '-'"

runs() { ((first <= $1 && $1 <= last)) && [[ $skipped != *" $1 "* ]]; }

needs_config() { # OPTION FILE STAGE...
    local n
    for n in "${@:3}"; do
        if runs "$n" && [[ ! -f $2 ]]; then
            option_error "$2 is missing, which stage $n (${stage_titles[n - 1]}) needs; name another by --$1"
        fi
    done
}

for name in systems teacher prune finetune decode profile; do
    file=${name}_config
    declare "$file=$(config "$name" "${!file}")"
done
needs_config systems_config "$systems_config" 8 9 10 11 12 14
[[ -n $teacher ]] || needs_config teacher_config "$teacher_config" 5 6
needs_config prune_config "$prune_config" 8
needs_config finetune_config "$finetune_config" 10
needs_config decode_config "$decode_config" 7 11
needs_config profile_config "$profile_config" 12
teacher=$(there "$teacher")
[[ ! -e $teacher ]] || teacher=$(realpath -s "$teacher")
overrides=${overrides:+$(realpath -m "$(there "$overrides")")}
[[ -z $overrides || -d $overrides ]] || option_error "--overrides: there is no folder '$overrides'"
! runs 1 || [[ -n $local_data_cmd ]] ||
    option_error "stage 1 needs --local_data_cmd, the command that makes data/$train_set and the other sets"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=cmd.sh
. "$here/cmd.sh"
conf_dir=$(realpath -m "$conf_dir")
export recipe_dir conf_dir # for local_data_cmd
work_dir=${work_dir:-$recipe_dir}
mkdir -p "$work_dir"
cd "$work_dir"

exp=exp/$tag
[[ $cmd_backend == local ]] || python -m espnet_prune jobs begin "$exp" # queued jobs read what is configured next
# shellcheck source=../../../utils/keep_configs.sh
. "$root/utils/keep_configs.sh"
[[ $cmd_backend != local ]] || remember_configs "$exp"
teacher_dir=$exp/teacher
train_data=data/$train_set
if [[ -n $speed_factors && ! $speed_factors =~ ^1(\.0*)?$ ]]; then train_data=data/${train_set}_sp; fi
train_dump=dump/${train_data#data/}
valid_dump=dump/$valid_set
# scored whole, validated without utterances of odd length
if [[ " $test_sets " == *" $valid_set "* ]]; then valid_dump=dump/${valid_set}_valid; fi
for set in $test_sets $valid_set; do # no set is made or formatted in place of another
    for made in "$train_dump" "$valid_dump"; do
        [[ $made != "dump/$set" || ($set == "$valid_set" && $made == "$valid_dump") ]] ||
            option_error "the set '$set' has the place of what stages 2 and 3 make of another, $made; rename it"
    done
done
training_data=(--train "$train_dump" --valid "$valid_dump" --tokens data/tokens)
configuration=(--out "$exp" "${training_data[@]}" --stats "$exp/stats" ${overrides:+--over "$overrides"})
if [[ $cmd_backend == local ]] && { for n in 6 8 10; do runs "$n" && break; done; }; then configuration+=(--ngpu "$ngpu"); fi
for name in systems teacher prune finetune decode profile; do
    file=${name}_config
    configuration+=(--config "$name" "${!file}")
done
if { for n in 8 9 10 11 12 13 14; do runs "$n" && break; done; }; then
    configuration+=(--systems ${systems:+--only "$systems"})
    ! runs 13 || configuration+=(--compare_with "$compare_with")
fi
chosen=$(python -m espnet_prune configure "${configuration[@]}")
{ read -r systems && read -r taken && read -r of_others && read -r compare_with; } <<<"$chosen"$'\n\n\n\n'
of_teacher= # the systems that need no other one's finished model
for name in $systems; do [[ " $of_others " == *" $name "* ]] || of_teacher+=" $name"; done
forget_unchanged
if runs 7 || runs 11; then python -m espnet_prune check_decoding --config "$exp/conf/decode.yaml"; fi

# shellcheck source=../../../utils/run_stages.sh
. "$root/utils/run_stages.sh"

decode_and_score() { # SYSTEM [ARGUMENT...]
    local set
    for set in $test_sets; do
        independent
        run_split "$decode_cmd" decode --model "$exp/$1/model" --data "dump/$set" --config "$exp/conf/decode.yaml" \
            --out "$exp/$1/decode/$set"
        score_system "$set" "$@"
    done
}

score_system() { # SET SYSTEM [ARGUMENT...]
    run "$decode_cmd" score --data "dump/$1" --system "$exp/$2" --set "$1" --normalise "$normalise" \
        ${scorer:+--tool "$scorer"} "${@:3}"
}

reading=(--sample_rate 16000 --pipes "$pipes" ${channel:+--channel "$channel"})

stage_data() {
    local set folders=()
    run_command "$train_cmd" bash -c "$local_data_cmd"
    for set in "$train_set" "$valid_set" $test_sets; do folders+=("data/$set"); done
    [[ $fix_data == false ]] || run "$train_cmd" fix_data "${folders[@]}" --nj "$nj" "${reading[@]}"
    run "$train_cmd" validate_data "${folders[@]}" --nj "$nj" "${reading[@]}"
}

stage_speed() {
    if [[ $train_data == "data/$train_set" ]]; then
        echo "nothing to do: --speed_factors is '$speed_factors'"
        return
    fi
    # shellcheck disable=SC2086  # a list of factors
    run "$train_cmd" perturb_speed --source "data/$train_set" --out "$train_data" --factors $speed_factors
}

stage_format() {
    local set common=("${reading[@]}" --format "$audio_format")
    [[ $text_case == keep ]] || common+=(--text_case "$text_case")
    local filter=(--min_seconds "$min_seconds" --max_seconds "$max_seconds")
    independent
    run_split "$decode_cmd" format_audio --source "$train_data" --out "$train_dump" "${common[@]}" "${filter[@]}"
    independent
    run_split "$decode_cmd" format_audio --source "data/$valid_set" --out "$valid_dump" "${common[@]}" "${filter[@]}"
    for set in $test_sets; do # whole: leaving out what is hard would flatter the result
        independent
        run_split "$decode_cmd" format_audio --source "data/$set" --out "dump/$set" "${common[@]}"
    done
}

stage_tokens() {
    if [[ -n $teacher ]]; then
        run "$train_cmd" make_tokens --text "$train_dump/text" --out data/tokens --teacher "$teacher"
        return
    fi
    run "$train_cmd" make_tokens --text "$train_dump/text" --out data/tokens --type "$token_type" \
        --vocab_size "$vocab_size" ${tokenizer:+--tokenizer "$tokenizer"}
}

stage_statistics() {
    local model=(--config "$exp/conf/teacher.yaml")
    [[ -z $teacher ]] || model=(--teacher "$teacher")
    run "$train_cmd" collect_stats "${model[@]}" "${training_data[@]}" --out "$exp/stats"
}

stage_teacher() {
    if [[ -n $teacher ]]; then
        run "$train_cmd" import_teacher --teacher "$teacher" --tokens data/tokens --out "$teacher_dir"
        return
    fi
    train train_teacher --config "$exp/conf/teacher.yaml" "${training_data[@]}" --stats "$exp/stats" --out "$teacher_dir"
}

stage_score_teacher() { decode_and_score teacher; }

train_systems() { # VERB SYSTEMS [WAITING]: those that are among the last wait for the one before them
    local name beside=()
    if ((train_nj > 1)); then
        for name in $2; do [[ " ${3-} " == *" $name "* ]] || beside+=("$name"); done
        ((${#beside[@]} == 0)) || train_side_by_side "$1" "${beside[@]}"
    fi
    for name in $2; do
        [[ " ${beside[*]-} " != *" $name "* ]] || continue
        echo "-- $name"
        [[ " ${3-} " == *" $name "* ]] || independent
        train "$1" --system "$exp/$name"
    done
}

cut_systems() { # SYSTEMS
    local name folders=()
    for name in $1; do folders+=("$exp/$name"); done
    ((${#folders[@]} == 0)) || run "$train_cmd" cut --system "${folders[@]}"
}

stage_prune() { train_systems prune "$of_teacher" "$taken"; } # a taken one has the run of the system before it

stage_cut() { cut_systems "$of_teacher"; }

stage_finetune() { # and makes those that are of others, which are finished now, from their pruning on
    train_systems finetune "$of_teacher"
    [[ -n $of_others ]] || return 0
    after_all
    train_systems prune "$of_others" "$taken"
    after_all
    cut_systems "$of_others"
    after_all
    train_systems finetune "$of_others"
}

stage_score() {
    local name
    for name in $systems; do decode_and_score "$name" --teacher "$teacher_dir"; done
}

stage_profile() {
    local name folders=("$teacher_dir")
    for name in $systems; do folders+=("$exp/$name"); done
    run "$train_cmd" profile --system "${folders[@]}" --teacher "$teacher_dir" --config "$exp/conf/profile.yaml" \
        --data "dump/${test_sets%% *}"
}

stage_report() {
    local name set others
    read -ra others <<< "$compare_with"
    if [[ -n $compare_with ]]; then # all are decoded by now
        for name in $systems; do
            for set in $test_sets; do
                score_system "$set" "$name" --teacher "$teacher_dir" --compare_with "${others[@]/#/$exp/}"
            done
        done
    fi
    run "$train_cmd" report "$exp" --corpus "$corpus"
}

stage_pack() {
    local name
    for name in $systems; do run "$train_cmd" pack --system "$exp/$name" --out "$exp/pack/$name.zip"; done
}

run_stages
