#!/usr/bin/env bash
# A stage as an LSF job array, whose tasks count from 1: bsub < FILE
#BSUB -J "@{name}[1-@{shards}]@{throttle}"
#BSUB -q @{queue}
#BSUB -n @{cpus}
#BSUB -R "span[hosts=1] rusage[mem=@{memory_gb}GB]"
#BSUB -gpu "num=@{gpus}"
#BSUB -W @{minutes}
#BSUB -wa USR1 -wt @{warning_minutes}
#BSUB -r
#BSUB -Q 75
#BSUB -o @{logs}/lsf-%J-%I.log
cd @{root} || exit 1
export SHARD_INDEX="${LSB_JOBINDEX:-1}" RZERO_INDEX_BASE=1 NUM_SHARDS=@{shards}
exec @{command}
