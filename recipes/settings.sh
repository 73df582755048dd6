# Sourced by train.sh and eval.sh in the project's folder. Applies recipes/$RECIPE.env, sets the
# defaults that both scripts share, and defines `run`. The environment takes precedence over the
# recipe, even where a variable is set but empty, and the recipe over the default.

# Every setting and the flag that it becomes. A new setting is one more word.
TRAINING='
    DATASET_NAME:dataset_name DATASET_DIR:dataset_dir MODEL_DIR:train_dir MODEL_NAME:model_name
    CHECKPOINT_PATH:checkpoint_path CHECKPOINT_EXCLUDE_SCOPES:checkpoint_exclude_scopes
    TRAINABLE_SCOPES:trainable_scopes
    TRAIN_IMAGE_SIZE:train_image_size TRAIN_BATCH_SIZE:batch_size NUM_CLONES:num_clones
    MAX_STEPS:max_number_of_steps EPOCHS:max_number_of_epochs
    OPTIMIZER:optimizer OPT_EPSILON:opt_epsilon LR:learning_rate
    DECAY_TYPE:learning_rate_decay_type END_LR:end_learning_rate
    LR_DECAY:learning_rate_decay_factor EPOCHS_PER_DECAY:num_epochs_per_decay
    WEIGHT_DECAY:weight_decay LABEL_SMOOTHING:label_smoothing CLASS_WEIGHTS:class_weights
    BATCH_NORM_DECAY:batch_norm_decay WARMUP_STEPS:warmup_steps
    MOVING_AVERAGE_DECAY:moving_average_decay
    LOG_STEPS:log_every_n_steps SAVE_SUMMARIES_SECS:save_summaries_secs
    SAVE_MODEL_SECS:save_interval_secs KEEP_CHECKPOINTS:keep_checkpoints
'
EVALUATION='
    DATASET_NAME:dataset_name DATASET_DIR:dataset_dir MODEL_DIR:checkpoint_path MODEL_DIR:eval_dir
    MODEL_NAME:model_name EVAL_IMAGE_SIZE:eval_image_size EVAL_BATCH_SIZE:batch_size
    EVAL_INTERVAL_SECS:eval_interval_secs MOVING_AVERAGE_DECAY:moving_average_decay
'

# names TABLE: prints the settings of a table, each once.
names() {
    printf '%s\n' $1 | sed 's/:.*//' | awk '!seen[$0]++'
}

# run MODULE TABLE [flags]: runs a command with the settings of a table that are not empty, and with
# further flags. Where a setting is empty, the command's own default applies.
run() {
    module=$1 table=$2
    shift 2
    case " $* " in *' --help '* | *' -h '* | *' --helpfull '*)
        echo "Settings, from the environment or recipes/\$RECIPE.env, with the values that they have"
        echo "now (docs/recipes.md explains them; empty ones are left to the flags below):"
        echo
        for name in $(names "$table"); do
            eval "printf '    %s=%s\\n' $name \"\${$name-}\""
        done
        echo ;;
    esac
    for row in $table; do
        eval "value=\${${row%:*}-}"
        if [ -n "$value" ]; then set -- "--${row#*:}=$value" "$@"; fi
    done
    exec "$PYTHON" -m "$module" "$@"
}

if [ -n "${RECIPE:-}" ]; then
    file=recipes/$RECIPE.env
    if [ ! -f "$file" ]; then
        known=$(cd recipes && echo *.env | sed 's/\.env//g')
        echo "error: RECIPE=$RECIPE: there is no $file; recipes are $known" >&2
        exit 1
    fi
    recipe=$(tr -d '\r' <"$file")  # line ends of other systems
    # A recipe has comments and lines such as LR=0.045 or : "${LR=0.045}", and no other commands.
    known=$(names "$TRAINING $EVALUATION" | paste -s -d '|' -)
    value="('[^']*'|\"[^\"]*\"|[^'\"[:space:];&|<>()\`]*)([[:space:]]+#.*)?"
    line="($known)=$value|: \"[$][{]($known)=[^\"]*[}]\"|#.*"
    if wrong=$(printf '%s\n' "$recipe" | grep -E -v -m 1 "^[[:space:]]*($line)?[[:space:]]*$"); then
        echo "error: $file: '$wrong' does not set a known setting; expected KEY=VALUE, with" \
            "quotes around spaces; known are $(echo "$known" | tr '|' ' ')" >&2
        exit 1
    fi
    # EPOCHS from the environment replaces the recipe's MAX_STEPS, and the other way round.
    if [ -n "${EPOCHS:-}" ]; then export MAX_STEPS="${MAX_STEPS-}"; fi
    if [ -n "${MAX_STEPS:-}" ]; then export EPOCHS="${EPOCHS-}"; fi
    environment=$(export -p)
    eval "$recipe"
    eval "$environment"
fi

DATASET_NAME=${DATASET_NAME:-cub_200}
DATASET_DIR=${DATASET_DIR:-./data/}
MODEL_DIR=${MODEL_DIR:-./checkpoints/${RECIPE:-$DATASET_NAME}}

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
