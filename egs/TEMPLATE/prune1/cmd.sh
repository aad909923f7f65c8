# shellcheck shell=bash
# Sourced by prune.sh: how commands run. Each is called as `$train_cmd LOG COMMAND [ARGUMENT...]`, in which options come
# first, and returns when the command has ended, with its exit status. Export a program with this interface to run
# elsewhere, or change the options here: those of conf/slurm.conf or conf/queue.conf, in the recipe's folder or in this
# clone's, which also hold what is your site's own. `submit.py --help` lists them.
submit="submit.py --backend ${cmd_backend:-local}"
case ${cmd_backend:-local} in
    local) many="" gpu="" ;;
    *)
        many=" --num-threads $((${nj:-1} < 8 ? ${nj:-1} : 8))" # of one machine; only stage 1 uses more than one for long
        gpu=$many
        if ((${ngpu:-0} > 0)); then gpu=" --num-threads $((4 * ngpu)) --gpu $ngpu"; fi # recipes load data by 4 processes
        if ((${nodes:-1} > 1)); then gpu+=" --nodes $nodes"; fi
        # A training is asked to stop so long before its time limit; it saves, and goes on until its epoch ends or this is over.
        # Grid Engine announces the limit by its queue's "notify" before it, 60 s by default, and has to be given less.
        if [[ $cmd_backend == sge ]]; then stop_seconds=${stop_seconds:-45}; fi
        gpu+=" --stop-seconds ${stop_seconds:-600}" ;;
esac
export train_cmd=${train_cmd:-$submit$many} # data, tokens, statistics, cutting, profiling, reports
export decode_cmd=${decode_cmd:-$submit}    # arrays of --nj jobs of one thread: format, decoding; scoring
export cuda_cmd=${cuda_cmd:-$submit$gpu}    # training, pruning, finetuning: with a GPU where --ngpu says
