#!/bin/bash
# TPU=name ZONE=zone docs/launch/tpu_pod.sh --config configs/k400_pretrain.py --config.data.path=... --workdir ...
#
# The same command on every host of a TPU slice, where this repository lies in ~/videomae-jax with an environment in
# .venv (`pip install ".[tpu]"`). Starts again when the run was told to end, with status 75.
words=$(printf ' %q' "$@")
until gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="cd videomae-jax && .venv/bin/python train.py$words"; status=$?; [ $status -ne 75 ]; do
    echo "told to end; once more"
done
exit $status
