#!/usr/bin/env bash
# One task of a job: a stage, or the shard of it that the array's index says. Slurm starts it with the stage and its flags as arguments.
#
# The stage is told to stop shortly before the time limit (SIGUSR1, which comes here alone) and when the job is cancelled or preempted (SIGTERM, which
# comes to both). It then exits with 75: nothing is half-written, and the same task goes on. Slurm starts a preempted task again by itself, and here we ask
# for it in all other cases, so the cluster need not know the code. What exits with anything else waits for a person.
set -uo pipefail

stage=$1
shift
# The array's index alone says the shard, not what stood in the environment of whoever submitted it.
unset SHARD_INDEX NUM_SHARDS RZERO_INDEX_BASE
[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || set -- "$@" --shard-index "$SLURM_ARRAY_TASK_ID"
export RZERO_THREADS=${SLURM_CPUS_PER_TASK:-1} POLARS_MAX_THREADS=${SLURM_CPUS_PER_TASK:-1}
restarts=${SLURM_RESTART_COUNT:-0}
echo "# $(date -u +%FT%TZ) ${SLURMD_NODENAME:-$HOSTNAME}, start $((restarts + 1)): $stage $*"

if ((restarts > RZERO_SLURM_RESTARTS)); then
    echo "# started again $restarts times, more than cluster.max_restarts of the profile: giving up"
    exit 1
fi

told_to_end=
"$RZERO_BIN/$stage" "$@" &
child=$!
trap 'kill -USR1 "$child" 2>/dev/null' USR1
trap 'told_to_end=1; kill -TERM "$child" 2>/dev/null' TERM

# A signal ends `wait` before the stage has ended.
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
done
# Where it ended while the signal was dealt with, the code is that of the signal, and the shell still knows the stage's.
if ((code > 128)); then
    known=0
    wait "$child" 2>/dev/null || known=$?
    ((known == 127)) || code=$known
fi
echo "# $(date -u +%FT%TZ) exit code $code"

if ((code == 75)) && [[ -z $told_to_end ]]; then
    job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    scontrol requeue "${job:-$SLURM_JOB_ID}" && sleep 60
fi
exit "$code"
