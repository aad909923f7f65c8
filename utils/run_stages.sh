# shellcheck shell=bash
# Sourced by prune.sh: runs its stages one after the other, or submits all their commands as jobs and returns.
#
# Submitted, a command waits for the one before it in its stage; after `independent`, only for all of the stage before.
# shellcheck disable=SC2154  # first, last, stage_names, stage_titles, exp, cmd_backend and so on are prune.sh's
export nj # for local_data_cmd

run() { # CMD VERB [ARGUMENT...]: one of espnet-prune's verbs, by one of cmd.sh's commands
    run_command "$1" python -m espnet_prune "${@:2}"
}

run_command() { # CMD WORD...: any command, into the stage's log
    local command
    read -ra command <<<"$1"
    if [[ $cmd_backend == local ]]; then
        "${command[@]}" "$log" "${@:2}"
        return
    fi
    submissions=$((submissions + 1))
    submit_command "${command[*]}" "${log%.log}.$submissions.log" "${@:2}"
}

submit_command() { # CMD [JOB=1:N] LOG WORD...
    local command folder log_word=2
    read -ra command <<<"$1"
    folder=$("${command[@]}" --wait false "${waits_for[@]}" "${@:2}")
    this_stage+=(--after "$folder")
    waits_for=(--after "$folder")
    if [[ $2 == *=1:* ]]; then log_word=3; fi
    echo "   job $(<"$folder/id"), log ${!log_word}"
}

task_word() { # WORD...: what stands for a task's number, and is replaced wherever it stands: in none of the words
    local task=JOB
    while [[ $* == *"$task"* ]]; do task+=_; done
    echo "$task"
}

run_split() { # CMD VERB [ARGUMENT...]: one that shares its work among --nj processes; submitted, among jobs
    local task
    if [[ $cmd_backend == local ]] || ((nj == 1)); then
        run "$@" --nj "$nj"
        return
    fi
    task=$(task_word "$exp" "$@")
    submissions=$((submissions + 1))
    submit_command "$1" "$task=1:$nj" "${log%.log}.$submissions.$task.log" \
        python -m espnet_prune "${@:2}" --part "$task/$nj"
    run "$@" # puts together what the jobs have made
}

train() { # VERB [ARGUMENT...]: a training; a process for each GPU, on several nodes at least one on each
    if ((nodes > 1)); then
        run "$cuda_cmd" nodes --nodes "$nodes" --processes $((ngpu > 1 ? ngpu : 1)) "$@" --ngpu $((ngpu > 0))
    elif ((ngpu > 1)); then
        run_command "$cuda_cmd" torchrun --standalone --nproc-per-node "$ngpu" -m espnet_prune "$@" --ngpu 1
    else
        run "$cuda_cmd" "$@" --ngpu "$ngpu"
    fi
}

train_side_by_side() { # VERB SYSTEM...: --train_nj at a time, on this machine's processors
    local verb=$1 threads=$((OMP_NUM_THREADS / train_nj)) task
    shift
    task=$(task_word "$exp" "$@")
    echo "-- $*: $train_nj at a time; their logs are $PWD/${log%.log}.1.log and so on"
    # shellcheck disable=SC2016  # the inner shell finds the system that is its task's
    OMP_NUM_THREADS=$((threads > 0 ? threads : 1)) log=${log%.log}.$task.log \
        run_command "$cuda_cmd --max-jobs-run $train_nj $task=1:$#" \
        bash -c 'exec python -m espnet_prune "$1" --system "${@:$0 + 1:1}" --ngpu 0' "$task" "$verb" "${@/#/$exp/}"
}

independent() { # what follows needs only the stages before
    waits_for=(${stage_before[@]+"${stage_before[@]}"})
}

after_all() { # submitted, what follows waits for all before it
    if ((${#this_stage[@]})); then stage_before=("${this_stage[@]}"); fi
    independent
}

training_words() { # how trainings are run
    local threads="$OMP_NUM_THREADS threads (OMP_NUM_THREADS)"
    echo "Training: $threads$( ((train_nj == 1)) || echo ", shared by $train_nj systems at a time (--train_nj)")."
}

stage_log() { # NUMBER NAME
    printf '%s/log/%02d_%s.log' "$exp" "$1" "$2"
}

run_one_stage() { # NUMBER NAME, here
    local status where started=$SECONDS
    # In a subshell and no condition, so that the first failing command ends it.
    set +e
    (set -e; "stage_$2")
    status=$?
    set -e
    if ((status)); then
        where="its log is $PWD/$log"
        [[ -f $log ]] || where="its logs are named above" # trained side by side
        echo "error: stage $1 ($2) failed after $((SECONDS - started)) s; $where" >&2
        ((status == 2)) || # the user's error, whose text names the remedy
            echo "       To resume, give the same command again: what is done already is skipped." >&2
        exit "$status"
    fi
    keep_configs "$2"
    echo "Stage $1 took $((SECONDS - started)) s"
}

submit_one_stage() { # NAME
    submissions=0
    this_stage=()
    independent
    "stage_$1"
    after_all
}

print_report() { # again, so that the table comes last: what followed the command in its log
    local report_log=$exp/log/13_report.log
    if [[ $cmd_backend != local ]]; then report_log=$exp/log/13_report.$report_submissions.log; fi
    tac "$report_log" | sed '/^# [0-9-]* [0-9:]* /q' | tac | sed '1d; /^# ended after /d'
}

await_jobs() { # until all have ended; whoever is interrupted cancels them
    local waiter status=0
    python -m espnet_prune jobs wait "$exp" &
    waiter=$!
    trap 'kill -TERM "$waiter" 2>/dev/null || true' INT TERM HUP
    wait "$waiter" || status=$?
    while kill -0 "$waiter" 2>/dev/null; do wait "$waiter" || status=$?; done # a signal ends only the first wait
    trap - INT TERM HUP
    ((status == 0)) || exit "$status"
}

end_submission() { # cancels what was submitted, where that ended early
    [[ $submitting == false ]] || python -m espnet_prune jobs cancel "$exp" || true # it says what is left
}

run_stages() {
    local n started=$SECONDS stage_before=() waits_for=() this_stage=() submissions=0 report_submissions=0
    submitting=false
    if [[ $cmd_backend != local ]]; then
        submitting=true
        trap end_submission EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
    fi
    [[ $cmd_backend != local ]] ||
        echo "Data and decoding: $nj at a time ($nj_reason). $(training_words)"
    for n in $(seq "$first" "$last"); do
        runs "$n" || continue
        log=$(stage_log "$n" "${stage_names[n - 1]}")
        echo "Stage $n: ${stage_titles[n - 1]}"
        if [[ $cmd_backend == local ]]; then
            run_one_stage "$n" "${stage_names[n - 1]}"
        else
            submit_one_stage "${stage_names[n - 1]}"
            if ((n == 13)); then report_submissions=$submissions; fi
        fi
    done
    if [[ $submitting == true ]]; then
        submitting=false
        if [[ $wait == false ]]; then
            python -m espnet_prune jobs list "$exp"
            return
        fi
        await_jobs
    fi
    if runs 13 && ((last > 13 || ${#stage_before[@]})); then print_report; fi
    echo "Done in $((SECONDS - started)) s; the experiment is $PWD/$exp"
}
