#!/bin/sh
# Train on all GPUs of this machine, or of several: the results are those of one process with the same batch.
#
#   sh examples/torchrun.sh paper-vit-s --data folder:/data/imagenet                    one machine, all its GPUs
#   PROCESSES=2 sh examples/torchrun.sh demo --device cpu --steps 100                   two processes on the CPU
#   NODES=4 HEAD=10.0.0.1 sh examples/torchrun.sh paper-vit-b --data folder:/data/...   the same line on each of 4 machines
#
# HEAD is the address of one of the machines, PORT (29500) one of its ports that the others can reach. With several
# machines --checkpoint-dir must lie on a file system that all of them share. Ctrl-C stops after the step, with a
# checkpoint; the same line with --resume goes on, on the same or another number of GPUs.
set -eu

NODES=${NODES:-1}
if [ "$NODES" = 1 ]; then
    meeting="--standalone"
else
    meeting="--nnodes $NODES --rdzv-backend c10d --rdzv-id ${RUN:-foreshock} --rdzv-endpoint ${HEAD:?name one of the machines}:${PORT:-29500}"
fi
# Each process decodes and augments on the CPU as well: one thread each, unless said otherwise.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# shellcheck disable=SC2086  # the options are meant to be split
exec "${PYTHON:-python}" -m torch.distributed.run $meeting --nproc-per-node "${PROCESSES:-gpu}" -m foreshock.trainer "$@"
