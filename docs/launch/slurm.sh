#!/bin/bash
# sbatch docs/launch/slurm.sh --config configs/k400_pretrain.py --config.data.path=prepared:train --workdir runs/k400
#
# One task a node, which has all of its GPUs. Five minutes before the time is up the tasks get SIGTERM; the run saves
# itself and ends with status 75, and the job goes back into the queue, to go on.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

srun "${PYTHON:-.venv/bin/python}" train.py "$@"
status=$?
if [ $status -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
