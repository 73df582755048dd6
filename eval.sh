#!/bin/sh
# Evaluates each new checkpoint of a training run.
# Usage: ./eval.sh [flags of slim.eval_image_classifier]
#
#   CUDA_VISIBLE_DEVICES=1 ./eval.sh
#   DATASET_NAME=aircraft ./eval.sh --max_number_of_evaluations=1
#   RECIPE=inat2017_299 EVAL_IMAGE_SIZE=448 ./eval.sh
#
# The settings below, and those that recipes/settings.sh passes to a flag, can be set in the
# environment or in recipes/$RECIPE.env; the environment takes precedence. docs/recipes.md lists the
# settings. Without MODEL_NAME and EVAL_IMAGE_SIZE, network and size are those of model.json, which
# training writes to MODEL_DIR; otherwise the published ones: Inception-V3 and 299 pixels.
set -eu
cd "$(dirname "$0")"
. recipes/settings.sh

EVAL_BATCH_SIZE=${EVAL_BATCH_SIZE:-100}
EVAL_INTERVAL_SECS=${EVAL_INTERVAL_SECS:-0}

run slim.eval_image_classifier "$EVALUATION" "$@"
