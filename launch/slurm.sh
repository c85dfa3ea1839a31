#!/usr/bin/env bash
# A job on GPUs in Slurm, one process per GPU, until it is done:
#
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 --time=12:00:00 \
#     launch/slurm.sh --config=configs/search_cifar.py --workdir=/shared/run
#
# JAX finds the other processes by Slurm's variables. Two minutes before its
# time is over, or when it is preempted, the job is told, saves and is queued
# again; the workdir must be on a disk that all nodes share. Start it in the
# repository, whose .venv has JAX for your GPUs: pip install -e . "jax[cuda13]".
#SBATCH --job-name=nasnet-jax
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -uo pipefail

export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}"
srun --kill-on-bad-exit=1 .venv/bin/python launch/main.py \
  --config.hosts.coordinator=auto "$@"
code=$?
# 143: it was told to stop, and saved.
if ((code == 143)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
