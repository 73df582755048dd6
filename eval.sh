#!/bin/sh
# Evaluates each new checkpoint of a training run.
# Usage: ./eval.sh [flags of slim.eval_image_classifier]
#
#   CUDA_VISIBLE_DEVICES=1 ./eval.sh
#   DATASET_NAME=aircraft ./eval.sh --max_number_of_evaluations=1
#   RECIPE=inat2017_299 EVAL_IMAGE_SIZE=448 ./eval.sh
#
# Every setting below can be given in the environment or in recipes/$RECIPE.env; the environment
# takes precedence. docs/recipes.md lists the settings.
set -eu
cd "$(dirname "$0")"
. recipes/settings.sh

EVAL_BATCH_SIZE=${EVAL_BATCH_SIZE:-100}
EVAL_IMAGE_SIZE=${EVAL_IMAGE_SIZE:-299}

EVAL_INTERVAL_SECS=${EVAL_INTERVAL_SECS:-0}

exec "$PYTHON" -m slim.eval_image_classifier \
    --checkpoint_path="$MODEL_DIR" \
    --eval_dir="$MODEL_DIR" \
    --dataset_dir="$DATASET_DIR" \
    --dataset_name="$DATASET_NAME" \
    --model_name="$MODEL_NAME" \
    --batch_size="$EVAL_BATCH_SIZE" \
    --eval_image_size="$EVAL_IMAGE_SIZE" \
    --eval_interval_secs="$EVAL_INTERVAL_SECS" \
    ${MOVING_AVERAGE_DECAY:+"--moving_average_decay=$MOVING_AVERAGE_DECAY"} \
    "$@"
