# Read by train.sh and eval.sh in the project's folder: the settings of recipes/$RECIPE.env, and the
# defaults of those that both scripts take. A setting in the environment, be it empty, comes before
# the recipe's, and the recipe's before the default.

SETTINGS=" DATASET_NAME DATASET_DIR MODEL_DIR MODEL_NAME MOVING_AVERAGE_DECAY\
 CHECKPOINT_PATH CHECKPOINT_EXCLUDE_SCOPES TRAINABLE_SCOPES\
 OPTIMIZER OPT_EPSILON LR DECAY_TYPE END_LR LR_DECAY EPOCHS_PER_DECAY\
 WEIGHT_DECAY LABEL_SMOOTHING BATCH_NORM_DECAY\
 TRAIN_BATCH_SIZE TRAIN_IMAGE_SIZE NUM_CLONES EPOCHS MAX_STEPS\
 LOG_STEPS SAVE_SUMMARIES_SECS SAVE_MODEL_SECS\
 EVAL_BATCH_SIZE EVAL_IMAGE_SIZE EVAL_INTERVAL_SECS "

# refuse TEXT: says on stderr what is wrong, and ends.
refuse() {
    echo "error: $1" >&2
    exit 1
}

# read_recipe NAME: sets what the recipe has and the environment has not.
read_recipe() {
    file=recipes/$1.env
    if [ ! -f "$file" ]; then
        known=$(cd recipes && echo *.env | sed 's/\.env//g')
        refuse "RECIPE=$1: there is no $file; recipes are $known"
    fi
    # Epochs or steps from the environment are not cut short by the recipe's other one.
    if [ -n "${EPOCHS:-}" ]; then MAX_STEPS=${MAX_STEPS-}; fi
    if [ -n "${MAX_STEPS:-}" ]; then EPOCHS=${EPOCHS-}; fi
    while read -r line || [ -n "$line" ]; do
        case $line in '' | '#'*) continue ;; esac
        key=${line%%=*}
        case $key in
            "$line" | '' | *[!A-Z_]*) refuse "$file: '$line' is not of the form KEY=VALUE" ;;
        esac
        case $SETTINGS in
            *" $key "*) ;;
            *) refuse "$file: unknown setting $key; known are$SETTINGS" ;;
        esac
        if eval "[ -z \"\${$key+set}\" ]"; then eval "$key=\${line#*=}"; fi
    done <"$file"
}

if [ -n "${RECIPE:-}" ]; then read_recipe "$RECIPE"; fi

DATASET_NAME=${DATASET_NAME:-cub_200}
DATASET_DIR=${DATASET_DIR:-./data/}
MODEL_DIR=${MODEL_DIR:-./checkpoints/${RECIPE:-$DATASET_NAME}}
MODEL_NAME=${MODEL_NAME:-inception_v3}

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
