#!/bin/sh
# Trains a network with a recipe. The default recipe is the published one, which fine-tunes the last
# layer of Inception-V3 on CUB-200-2011.
# Usage: ./train.sh [flags of slim.train_image_classifier]
#
#   CUDA_VISIBLE_DEVICES=0 ./train.sh
#   DATASET_NAME=aircraft LR=0.001 ./train.sh --num_clones=2
#   RECIPE=inat2017_299 ./train.sh
#
# Every setting below can be given in the environment or in recipes/$RECIPE.env; the environment
# takes precedence. An empty CHECKPOINT_PATH starts from random weights; an empty TRAINABLE_SCOPES
# trains all layers. docs/recipes.md lists the settings.
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

if asks_for_help "$@"; then
    show_settings DATASET_NAME DATASET_DIR MODEL_DIR MODEL_NAME CHECKPOINT_PATH \
        CHECKPOINT_EXCLUDE_SCOPES TRAINABLE_SCOPES TRAIN_IMAGE_SIZE TRAIN_BATCH_SIZE NUM_CLONES \
        MAX_STEPS EPOCHS OPTIMIZER OPT_EPSILON LR DECAY_TYPE END_LR LR_DECAY EPOCHS_PER_DECAY \
        WEIGHT_DECAY LABEL_SMOOTHING BATCH_NORM_DECAY MOVING_AVERAGE_DECAY LOG_STEPS \
        SAVE_SUMMARIES_SECS SAVE_MODEL_SECS
fi

# The optional flags at the end are passed only if their setting is not empty. Otherwise the
# command's own defaults apply, such as no moving averages and no label smoothing.
exec "$PYTHON" -m slim.train_image_classifier \
    --train_dir="$MODEL_DIR" \
    --dataset_dir="$DATASET_DIR" \
    --dataset_name="$DATASET_NAME" \
    --model_name="$MODEL_NAME" \
    --checkpoint_path="$CHECKPOINT_PATH" \
    --checkpoint_exclude_scopes="$CHECKPOINT_EXCLUDE_SCOPES" \
    --trainable_scopes="$TRAINABLE_SCOPES" \
    --optimizer="$OPTIMIZER" \
    --learning_rate="$LR" \
    --end_learning_rate="$END_LR" \
    --learning_rate_decay_factor="$LR_DECAY" \
    --num_epochs_per_decay="$EPOCHS_PER_DECAY" \
    --batch_size="$TRAIN_BATCH_SIZE" \
    --train_image_size="$TRAIN_IMAGE_SIZE" \
    --log_every_n_steps="$LOG_STEPS" \
    --save_summaries_secs="$SAVE_SUMMARIES_SECS" \
    --save_interval_secs="$SAVE_MODEL_SECS" \
    ${MAX_STEPS:+"--max_number_of_steps=$MAX_STEPS"} \
    ${EPOCHS:+"--max_number_of_epochs=$EPOCHS"} \
    ${DECAY_TYPE:+"--learning_rate_decay_type=$DECAY_TYPE"} \
    ${OPT_EPSILON:+"--opt_epsilon=$OPT_EPSILON"} \
    ${WEIGHT_DECAY:+"--weight_decay=$WEIGHT_DECAY"} \
    ${LABEL_SMOOTHING:+"--label_smoothing=$LABEL_SMOOTHING"} \
    ${BATCH_NORM_DECAY:+"--batch_norm_decay=$BATCH_NORM_DECAY"} \
    ${MOVING_AVERAGE_DECAY:+"--moving_average_decay=$MOVING_AVERAGE_DECAY"} \
    ${NUM_CLONES:+"--num_clones=$NUM_CLONES"} \
    "$@"
