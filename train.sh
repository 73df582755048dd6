#!/bin/sh
# Trains a network with a recipe. The default recipe is the published one, which fine-tunes the last
# layer of Inception-V3 on CUB-200-2011.
# Usage: ./train.sh [flags of slim.train_image_classifier]
#
#   CUDA_VISIBLE_DEVICES=0 ./train.sh
#   DATASET_NAME=aircraft LR=0.001 ./train.sh --num_clones=2
#   RECIPE=inat2017_299 ./train.sh
#
# The settings below, and those that recipes/settings.sh passes to a flag, can be set in the
# environment or in recipes/$RECIPE.env; the environment takes precedence. An empty CHECKPOINT_PATH
# starts from random weights; an empty TRAINABLE_SCOPES trains all layers. docs/recipes.md lists all
# settings.
set -eu
cd "$(dirname "$0")"
. recipes/settings.sh

MODEL_NAME=${MODEL_NAME:-inception_v3}
CHECKPOINT_PATH=${CHECKPOINT_PATH-./checkpoints/inception/inception_v3_iNat_299.ckpt}
CHECKPOINT_EXCLUDE_SCOPES=${CHECKPOINT_EXCLUDE_SCOPES-Logits}
# fine-tune the last layer
TRAINABLE_SCOPES=${TRAINABLE_SCOPES-Logits}

OPTIMIZER=${OPTIMIZER:-momentum}

LR=${LR:-0.01}
END_LR=${END_LR:-0.0001}
LR_DECAY=${LR_DECAY:-0.1}
EPOCHS_PER_DECAY=${EPOCHS_PER_DECAY:-10.0}

TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-64}
TRAIN_IMAGE_SIZE=${TRAIN_IMAGE_SIZE:-299}

LOG_STEPS=${LOG_STEPS:-10}
SAVE_SUMMARIES_SECS=${SAVE_SUMMARIES_SECS:-10}
SAVE_MODEL_SECS=${SAVE_MODEL_SECS:-60}

# 2,810 steps are 30 epochs of CUB-200-2011: 5,994 training images in batches of 64. If both EPOCHS
# and MAX_STEPS are set, training ends with the earlier one.
if [ -z "${EPOCHS:-}" ]; then MAX_STEPS=${MAX_STEPS:-2810}; fi

run slim.train_image_classifier "$TRAINING" "$@"
