#!/bin/sh
# Evaluates each new checkpoint of a folder: ./eval.sh [flags of slim.eval_image_classifier]
#
#   CUDA_VISIBLE_DEVICES=1 ./eval.sh
#   DATASET_NAME=aircraft ./eval.sh --max_number_of_evaluations=1
#
# Each setting below can be given in the environment.
set -eu
cd "$(dirname "$0")"

DATASET_NAME=${DATASET_NAME:-cub_200}
DATASET_DIR=${DATASET_DIR:-./data/}
MODEL_DIR=${MODEL_DIR:-./checkpoints/${DATASET_NAME}}

MODEL_NAME=${MODEL_NAME:-inception_v3}

EVAL_BATCH_SIZE=${EVAL_BATCH_SIZE:-100}
EVAL_IMAGE_SIZE=${EVAL_IMAGE_SIZE:-299}

EVAL_INTERVAL_SECS=${EVAL_INTERVAL_SECS:-0}

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi

exec "$PYTHON" -m slim.eval_image_classifier \
    --checkpoint_path="$MODEL_DIR" \
    --eval_dir="$MODEL_DIR" \
    --dataset_dir="$DATASET_DIR" \
    --dataset_name="$DATASET_NAME" \
    --model_name="$MODEL_NAME" \
    --batch_size="$EVAL_BATCH_SIZE" \
    --eval_image_size="$EVAL_IMAGE_SIZE" \
    --eval_interval_secs="$EVAL_INTERVAL_SECS" \
    "$@"
