#!/usr/bin/env bash
# A stage as a PBS job array: qsub FILE
# PBS does not start a task again for its exit code: after 75, submit the same file; shards that are done do nothing.
#PBS -N @{short_name}
#PBS -q @{queue}
#PBS -J 0-@{last}
#PBS -l select=1:ncpus=@{cpus}:ngpus=@{gpus}:mem=@{memory_gb}gb
#PBS -l walltime=@{clock}
#PBS -r y
#PBS -j oe
cd @{root} || exit 1
export SHARD_INDEX="${PBS_ARRAY_INDEX:-0}" NUM_SHARDS=@{shards}
exec @{command}
