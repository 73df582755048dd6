# Sourced by train.sh and eval.sh in the project's folder. Reads the settings of
# recipes/$RECIPE.env, and sets the defaults of the settings that both scripts use. The environment
# takes precedence over the recipe, even where a variable is set but empty, and the recipe over the
# default.

SETTINGS=" DATASET_NAME DATASET_DIR MODEL_DIR MODEL_NAME MOVING_AVERAGE_DECAY\
 CHECKPOINT_PATH CHECKPOINT_EXCLUDE_SCOPES TRAINABLE_SCOPES\
 OPTIMIZER OPT_EPSILON LR DECAY_TYPE END_LR LR_DECAY EPOCHS_PER_DECAY\
 WEIGHT_DECAY LABEL_SMOOTHING BATCH_NORM_DECAY\
 TRAIN_BATCH_SIZE TRAIN_IMAGE_SIZE NUM_CLONES EPOCHS MAX_STEPS\
 LOG_STEPS SAVE_SUMMARIES_SECS SAVE_MODEL_SECS\
 EVAL_BATCH_SIZE EVAL_IMAGE_SIZE EVAL_INTERVAL_SECS "

# refuse TEXT: prints an error to stderr and exits.
refuse() {
    echo "error: $1" >&2
    exit 1
}

# asks_for_help ARGUMENT...: returns whether --help is among the arguments of the script.
asks_for_help() {
    case " $* " in *' --help '* | *' -h '* | *' --helpfull '*) ;; *) return 1 ;; esac
}

# show_settings NAME...: prints settings with their values.
show_settings() {
    echo "Settings, from the environment or recipes/\$RECIPE.env, with the values that they have now"
    echo "(docs/recipes.md explains them; empty ones are left to the flags below):"
    echo
    for key; do eval "printf '    %s=%s\\n' $key \"\${$key-}\""; done
    echo
}

# trim TEXT: sets text to TEXT without white space at its ends.
trim() {
    text=${1#"${1%%[![:space:]]*}"}
    text=${text%"${text##*[![:space:]]}"}
}

# read_value TEXT: sets value to TEXT without a comment at its end and without quotes around it.
# Fails if the quotes do not match.
read_value() {
    case $1 in
        [\"\']*)
            quote=${1%"${1#?}"}
            value=${1#?}
            case $value in *"$quote"*) ;; *) return 1 ;; esac
            trim "${value#*"$quote"}"
            value=${value%%"$quote"*}
            case $text in '' | '#'*) ;; *) return 1 ;; esac
            ;;
        '#'*) value= ;;
        *)
            trim "${1%%[[:space:]]#*}"
            value=$text
            ;;
    esac
}

# read_recipe NAME: applies the settings of a recipe that are not set in the environment.
read_recipe() {
    file=recipes/$1.env
    if [ ! -f "$file" ]; then
        known=$(cd recipes && echo *.env | sed 's/\.env//g')
        refuse "RECIPE=$1: there is no $file; recipes are $known"
    fi
    # EPOCHS from the environment replaces the recipe's MAX_STEPS, and the other way round.
    if [ -n "${EPOCHS:-}" ]; then MAX_STEPS=${MAX_STEPS-}; fi
    if [ -n "${MAX_STEPS:-}" ]; then EPOCHS=${EPOCHS-}; fi
    while read -r line || [ -n "$line" ]; do
        trim "$line"  # a carriage return, too
        line=$text
        case $line in '' | '#'*) continue ;; esac
        key=${line%%=*}
        case $key in
            "$line" | '' | *[!A-Z_]*) refuse "$file: '$line' is not of the form KEY=VALUE" ;;
        esac
        case $SETTINGS in
            *" $key "*) ;;
            *) refuse "$file: unknown setting $key; known are$SETTINGS" ;;
        esac
        trim "${line#*=}"
        read_value "$text" || refuse "$file: '$line': the quotes do not enclose the value"
        if eval "[ -z \"\${$key+set}\" ]"; then eval "$key=\$value"; fi
    done <"$file"
}

if [ -n "${RECIPE:-}" ]; then read_recipe "$RECIPE"; fi

DATASET_NAME=${DATASET_NAME:-cub_200}
DATASET_DIR=${DATASET_DIR:-./data/}
MODEL_DIR=${MODEL_DIR:-./checkpoints/${RECIPE:-$DATASET_NAME}}

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
