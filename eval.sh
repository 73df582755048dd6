#!/bin/sh
# Evaluates each new checkpoint of a training run.
# Usage: ./eval.sh [flags of slim.eval_image_classifier]
#
#   CUDA_VISIBLE_DEVICES=1 ./eval.sh
#   DATASET_NAME=aircraft ./eval.sh --max_number_of_evaluations=1
#   RECIPE=inat2017_299 EVAL_IMAGE_SIZE=448 ./eval.sh
#
# Every setting below can be given in the environment or in recipes/$RECIPE.env; the environment
# takes precedence. docs/recipes.md lists the settings. Without MODEL_NAME and EVAL_IMAGE_SIZE,
# network and size are those of model.json, which training writes to MODEL_DIR, else the published
# ones: Inception-V3 and 299 pixels.
set -eu
cd "$(dirname "$0")"
. recipes/settings.sh

EVAL_BATCH_SIZE=${EVAL_BATCH_SIZE:-100}
EVAL_INTERVAL_SECS=${EVAL_INTERVAL_SECS:-0}

if asks_for_help "$@"; then
    show_settings DATASET_NAME DATASET_DIR MODEL_DIR MODEL_NAME EVAL_IMAGE_SIZE EVAL_BATCH_SIZE \
        EVAL_INTERVAL_SECS MOVING_AVERAGE_DECAY
fi

exec "$PYTHON" -m slim.eval_image_classifier \
    --checkpoint_path="$MODEL_DIR" \
    --eval_dir="$MODEL_DIR" \
    --dataset_dir="$DATASET_DIR" \
    --dataset_name="$DATASET_NAME" \
    --batch_size="$EVAL_BATCH_SIZE" \
    --eval_interval_secs="$EVAL_INTERVAL_SECS" \
    ${MODEL_NAME:+"--model_name=$MODEL_NAME"} \
    ${EVAL_IMAGE_SIZE:+"--eval_image_size=$EVAL_IMAGE_SIZE"} \
    ${MOVING_AVERAGE_DECAY:+"--moving_average_decay=$MOVING_AVERAGE_DECAY"} \
    "$@"
