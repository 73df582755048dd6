#!/bin/sh
# Plays the paper through in miniature, on a machine with Python 3.10 to 3.13: draws toy datasets,
# trains Inception-V3 from random weights on two sources, fine-tunes the last layer on a target,
# evaluates, extracts features, executes both notebooks on them, and tests claims of the paper. With
# --full, it also covers the long tail, image resolution, and the transfer study, with the union of
# the sources and a selection of their classes. Finished steps are skipped; interrupted ones resume.
# Usage: [SEED=1] ./demo.sh [--full]
#
# SEED is the seed of all trainings. Results of another seed need a folder of their own, as in
# `python -m demo.seeds`.
set -eu
cd "$(dirname "$0")"

case "$*" in
    '' | --full) ;;
    *) echo "error: ./demo.sh $*: expected nothing, or --full" >&2; exit 1 ;;
esac

SEED=${SEED:-1}
case $SEED in
    *[!0-9]*) echo "error: SEED=$SEED: expected a whole number, such as SEED=1" >&2; exit 1 ;;
esac
SOURCES='toy_inat toy_imagenet'
TARGETS='toy_birds toy_flowers toy_cars'
UNION=$(echo $SOURCES | tr ' ' +)
BATCH=32

# Training from random weights. At 107 pixels, Inception-V3 needs an eighth of its computation at
# 299 pixels; with a quarter of the channels, it trains five times as fast again.
MODEL=inception_v3_025
SIZE=107
SMALLER=75
STEPS=${STEPS:-360}
UNION_STEPS=${UNION_STEPS:-900}
SOURCE_LR=0.004
# The long tail: training images per class of the balanced subset, and the bounds of the groups.
PER_CLASS=30
BOUNDS=40,120
# Fine-tuning all layers: on the balanced subset, at another image size, on the targets.
BALANCED_STEPS=${BALANCED_STEPS:-100}
SIZE_STEPS=${SIZE_STEPS:-250}
TARGET_STEPS=${TARGET_STEPS:-60}
# Empty to omit fine-tuning on the targets, which none of the claims needs.
FINE_TUNE=${FINE_TUNE-yes}
# Runs this short learn more from images that are not distorted. The averages of batch norm have to
# settle within hundreds of steps instead of tens of thousands.
SHORT="--noaugment --seed=$SEED"
export BATCH_NORM_DECAY=0.95 DECAY_TYPE=polynomial OPT_EPSILON=0.001 LOG_STEPS=50
export MODEL_NAME=$MODEL TRAIN_IMAGE_SIZE=$SIZE TRAIN_BATCH_SIZE=$BATCH
# TensorFlow uses oneDNN by itself only on processors with instructions for neural networks, such as
# AVX512-VNNI. On others, training this network takes 1.4 times as long without it.
export TF_ENABLE_ONEDNN_OPTS=${TF_ENABLE_ONEDNN_OPTS:-1}
# TensorFlow then does not load Keras 3, which takes more than a second of each start.
export TF_USE_LEGACY_KERAS=1
# On two cores, a network this small trains 15% faster if its layers run in parallel, each in one
# thread.
if [ "$(nproc 2>/dev/null)" = 2 ]; then
    export TF_NUM_INTRAOP_THREADS=${TF_NUM_INTRAOP_THREADS:-1}
fi

./install.sh
begun=$(date +%s)
if [ ! -e checkpoints/toy_inat ]; then .venv/bin/python -m demo.duration "$@"; fi
# Not part of the repository, and only needed for iNaturalist 2017.
if [ ! -e inat_minival.txt ] && ! .venv/bin/python -m slim.datasets.minival 2>/dev/null; then
    echo "inat_minival.txt cannot be fetched now; the demo does not need it; to fetch it later:" \
        ".venv/bin/python -m slim.datasets.minival"
fi

# story TEXT: prints a step of the story, and the minutes that have passed.
story() {
    echo "== $1 ($((($(date +%s) - begun) / 60)) min so far)"
}

story "1 of 6: draw and convert the toy datasets"
.venv/bin/python -m demo.toy
for name in $SOURCES toy_birds; do
    .venv/bin/python convert_dataset.py --dataset_name="$name" --num_shards=4
done

# epochs DATASET STEPS: prints the number of epochs, over which the learning rate decays.
epochs() {
    awk -v images="$(($2 * BATCH))" 'END { print images / NR }' "data/$1/train.txt"
}

# is_at NAME STEP [FROM]: whether a network has been trained to a step, from the present network
# FROM. Otherwise, training resumes, or says why it cannot.
is_at() {
    [ -e "checkpoints/$1/model.ckpt-$2.index" ] &&
        ! [ "checkpoints/${3:-$1}/checkpoint" -nt "checkpoints/$1/checkpoint" ]
}

# train_layers DATASET NAME STEPS LR FROM [flags]: trains all layers, from the network FROM with the
# same classes, or from random weights if it is empty.
train_layers() {
    dataset=$1 model=$2 steps=$3 rate=$4 from=$5
    shift 5
    if is_at "$model" "$steps" "$from"; then return; fi
    DATASET_NAME=$dataset MODEL_DIR=./checkpoints/$model \
        CHECKPOINT_PATH=${from:+./checkpoints/$from} CHECKPOINT_EXCLUDE_SCOPES='' \
        TRAINABLE_SCOPES='' OPTIMIZER=adam LR=$rate END_LR=0.00001 \
        MAX_STEPS=$steps EPOCHS_PER_DECAY=$(epochs "$dataset" "$steps") ./train.sh $SHORT "$@"
}

# extract NAME: extracts the features of all datasets, unless all are newer than the checkpoint.
extract() {
    for dataset in $SOURCES $TARGETS; do
        for file in "feature/$1/${dataset}_feature_train.npy" \
            "feature/$1/${dataset}_feature_val.npy"; do
            if [ ! -e "$file" ] || [ "checkpoints/$1/checkpoint" -nt "$file" ]; then
                .venv/bin/python feature_extraction.py --checkpoint_path="./checkpoints/$1" \
                    --dataset_name="$(echo $SOURCES $TARGETS | tr ' ' ,)"
                return
            fi
        done
    done
}

# evaluate NAME DATASET FOLDER [flags]: evaluates into FOLDER unless its eval.txt is newer than the
# checkpoint, and prints the results.
evaluate() {
    model=$1 dataset=$2 folder=$3
    shift 3
    mkdir -p "$folder"
    results=$folder/eval.txt
    if [ ! -e "$results" ] || [ "checkpoints/$model/checkpoint" -nt "$results" ]; then
        DATASET_NAME=$dataset MODEL_DIR=./checkpoints/$model ./eval.sh --per_class \
            --max_number_of_evaluations=1 --eval_dir="$folder" "$@" >"$folder/eval.tmp"
        mv "$folder/eval.tmp" "$results"
    fi
    cat "$results"
}

for name in $SOURCES; do
    story "2 of 6: train $MODEL on $name from random weights"
    train_layers "$name" "$name" "$STEPS" $SOURCE_LR ''
done

story "3 of 6: fine-tune the last layer of the toy_inat network on toy_birds"
# On features, which are computed once. Training on images also moves the averages of batch norm in
# the other layers to the target, and the features of toy_inat with these averages are worse.
if ! is_at toy_birds 1000 toy_inat; then
    DATASET_NAME=toy_birds CHECKPOINT_PATH=./checkpoints/toy_inat LR=0.05 \
        MAX_STEPS=1000 EPOCHS_PER_DECAY=$(epochs toy_birds 1000) ./train.sh $SHORT --cache_features
fi

story "4 of 6: evaluate the three networks"
for name in $SOURCES toy_birds; do
    evaluate "$name" "$name" "checkpoints/$name"
done

story "5 of 6: extract features of all datasets with both source networks"
for name in $SOURCES; do
    extract "$name"
done

story "6 of 6: execute the notebooks"
for notebook in LinearClassifierDemo DomainSimilarityDemo; do
    page=feature/$notebook.html
    if [ ! -e "$page" ] || [ $notebook.ipynb -nt "$page" ] ||
        [ -n "$(find feature -name '*.npy' -newer "$page")" ]; then
        .venv/bin/jupyter nbconvert --to=html --execute --output-dir=feature \
            --ExecutePreprocessor.startup_timeout=300 $notebook.ipynb \
            2>feature/$notebook.log || { cat feature/$notebook.log >&2; exit 1; }
    fi
    echo "$page"
done

if [ "$*" = --full ]; then
    story "full, 1 of 4: the long tail: at most $PER_CLASS images per class of toy_inat"
    .venv/bin/python -m slim.datasets.balance --dataset_name=toy_inat --max_per_class=$PER_CLASS
    .venv/bin/python convert_dataset.py --dataset_name="toy_inat_balanced_$PER_CLASS" --num_shards=4
    train_layers toy_inat toy_inat_longer "$BALANCED_STEPS" 0.001 toy_inat # for comparison
    train_layers "toy_inat_balanced_$PER_CLASS" toy_inat_balanced "$BALANCED_STEPS" 0.001 toy_inat
    for name in toy_inat_longer toy_inat_balanced; do
        evaluate "$name" toy_inat "checkpoints/$name"
    done
    .venv/bin/python -m slim.long_tail --names=before,longer,balanced --group_bounds=$BOUNDS \
        checkpoints/toy_inat checkpoints/toy_inat_longer checkpoints/toy_inat_balanced

    story "full, 2 of 4: resolution: toy_imagenet at $SMALLER pixels, compared with $SIZE"
    small=toy_imagenet_$SMALLER
    train_layers toy_imagenet "$small" "$STEPS" $SOURCE_LR '' --train_image_size=$SMALLER
    for name in "$small" toy_imagenet; do
        evaluate "$name" toy_imagenet "checkpoints/$name/sizes" --eval_image_size=$SMALLER,$SIZE
    done
    evaluate "$small" toy_imagenet "checkpoints/$small"
    for size in $SMALLER $SIZE; do
        name=${small}_at_$size
        train_layers toy_imagenet "$name" "$SIZE_STEPS" $SOURCE_LR "$small" \
            --train_image_size="$size"
        evaluate "$name" toy_imagenet "checkpoints/$name"
    done

    story "full, 3 of 4: the union of the sources, and its classes nearest to the targets"
    .venv/bin/python -m slim.datasets.union --dataset_names="$(echo $SOURCES | tr ' ' ,)"
    .venv/bin/python convert_dataset.py --dataset_name="$UNION" --num_shards=4
    train_layers "$UNION" "$UNION" "$UNION_STEPS" $SOURCE_LR ''
    extract "$UNION"
    .venv/bin/python -m slim.transfer.source_selection --feature_dir="feature/$UNION" \
        --sources="$(echo $SOURCES | tr ' ' ,)" --targets="$(echo $TARGETS | tr ' ' ,)" \
        --top_k=18 --min_count=1 --output_name=toy_selected
    .venv/bin/python convert_dataset.py --dataset_name=toy_selected --num_shards=4
    train_layers toy_selected toy_selected "$UNION_STEPS" $SOURCE_LR ''

    story "full, 4 of 4: the transfer study"
    for name in $TARGETS; do
        .venv/bin/python convert_dataset.py --dataset_name="$name" --num_shards=4
    done
    .venv/bin/python -m slim.transfer.study --min_count=1 --batch_size=$BATCH \
        --normalize_features --gamma=1 \
        --sources="$(echo $SOURCES "$UNION" toy_selected | tr ' ' ,)" \
        --targets="$(echo $TARGETS | tr ' ' ,)" --num_workers=2 \
        ${FINE_TUNE:+--fine_tune "--fine_tune_steps=$TARGET_STEPS" "--fine_tune_flags=$SHORT \
            --batch_norm_decay=$BATCH_NORM_DECAY --optimizer=adam --opt_epsilon=$OPT_EPSILON \
            --learning_rate=$SOURCE_LR --end_learning_rate=0.00001 --save_interval_secs=600"}
fi

cat <<EOF

images and shards: data; checkpoints and event files: checkpoints; features and notebooks: feature
training curves: .venv/bin/tensorboard --logdir=checkpoints --reload_multifile=true
EOF
claims=feature/claims${1:+_full}.txt
if [ ! -e "$claims" ] || [ ! -e feature/claims.json ] || [ -n "$(find feature checkpoints \
    -newer "$claims" \( -name '*.np[yz]' -o -name claims.json \))" ]; then
    .venv/bin/python -m demo.claims "$@" >feature/claims.tmp
    touch feature/claims.tmp # it has to be newer than claims.json
    mv feature/claims.tmp "$claims"
fi
cat "$claims"
