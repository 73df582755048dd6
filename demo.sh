#!/bin/sh
# Plays the paper through in miniature, on a machine with Python 3.10 to 3.13: draws toy datasets,
# trains Inception-V3 from random weights on two sources, fine-tunes the last layer on a target,
# evaluates, extracts features, and executes both notebooks on them. With --full, it also covers the
# long tail, image resolution, and the transfer study, with the union of the sources and a selection
# of their classes. Finished steps are skipped; interrupted ones resume.
# Usage: ./demo.sh [--full]
set -eu
cd "$(dirname "$0")"

case "$*" in
    '' | --full) ;;
    *) echo "error: ./demo.sh $*: expected nothing, or --full" >&2; exit 1 ;;
esac

SOURCES='toy_inat toy_imagenet'
TARGETS='toy_birds toy_flowers toy_cars'
# At 107 pixels, Inception-V3 needs an eighth of the computation at 299 pixels.
SIZE=107
SMALLER=75
UNION=$(echo $SOURCES | tr ' ' +)
export TRAIN_IMAGE_SIZE=$SIZE EVAL_IMAGE_SIZE=$SIZE TRAIN_BATCH_SIZE=32 LOG_STEPS=20
# The averages of batch norm have to settle within a few hundred steps instead of tens of thousands.
SHORT='--batch_norm_decay=0.95 --learning_rate_decay_type=polynomial --seed=1'
# Runs this short learn more from images that are not distorted.
STUDY='--noaugment --batch_norm_decay=0.95 --optimizer=adam --opt_epsilon=0.001 --seed=1'
STUDY="$STUDY --learning_rate=0.002 --end_learning_rate=0.00001 --save_interval_secs=600"

./install.sh

echo "== 1 of 6: draw and convert the toy datasets"
.venv/bin/python -m slim.datasets.toy
for name in $SOURCES toy_birds; do
    .venv/bin/python convert_dataset.py --dataset_name="$name" --num_shards=4
done

# train_source DATASET NAME STEPS EPOCHS [flags]: trains from random weights for STEPS steps; the
# learning rate decays over EPOCHS epochs.
train_source() {
    dataset=$1 model=$2 steps=$3 epochs=$4
    shift 4
    DATASET_NAME=$dataset MODEL_DIR=./checkpoints/$model MAX_STEPS=$steps \
        CHECKPOINT_PATH='' TRAINABLE_SCOPES='' \
        OPTIMIZER=adam LR=0.002 END_LR=0.00002 EPOCHS_PER_DECAY=$epochs \
        ./train.sh $SHORT --opt_epsilon=0.001 "$@"
}

# fine_tune FROM DATASET NAME EPOCHS: fine-tunes all layers for 60 steps, which are EPOCHS epochs.
fine_tune() {
    DATASET_NAME=$2 MODEL_DIR=./checkpoints/$3 CHECKPOINT_PATH=./checkpoints/$1 MAX_STEPS=60 \
        CHECKPOINT_EXCLUDE_SCOPES='' TRAINABLE_SCOPES='' \
        OPTIMIZER=adam LR=0.0003 END_LR=0 EPOCHS_PER_DECAY=$4 ./train.sh $SHORT --opt_epsilon=0.001
}

# evaluate NAME DATASET FOLDER [flags]: evaluates into FOLDER unless its results are newer than the
# checkpoint, and prints them.
evaluate() {
    model=$1 dataset=$2 folder=$3
    shift 3
    mkdir -p "$folder"
    results=$folder/results.json
    if [ ! -e "$results" ] || [ "checkpoints/$model/checkpoint" -nt "$results" ]; then
        DATASET_NAME=$dataset MODEL_DIR=./checkpoints/$model \
            ./eval.sh --max_number_of_evaluations=1 --eval_dir="$folder" "$@" >"$folder/eval.txt"
    fi
    cat "$folder/eval.txt"
}

for name in $SOURCES; do
    echo "== 2 of 6: train Inception-V3 on $name from random weights"
    train_source "$name" "$name" 400 12.5
done

echo "== 3 of 6: fine-tune the last layer of the toy_inat network on toy_birds"
DATASET_NAME=toy_birds CHECKPOINT_PATH=./checkpoints/toy_inat MAX_STEPS=200 \
    LR=0.05 EPOCHS_PER_DECAY=17 \
    ./train.sh $SHORT

echo "== 4 of 6: evaluate the three networks"
for name in $SOURCES toy_birds; do
    evaluate "$name" "$name" "checkpoints/$name"
done

echo "== 5 of 6: extract features of all datasets with both source networks"
for name in $SOURCES; do
    .venv/bin/python feature_extraction.py --checkpoint_path=./checkpoints/"$name" \
        --dataset_name="$(echo $SOURCES $TARGETS | tr ' ' ,)" --image_size=$SIZE --merge_splits
done

echo "== 6 of 6: execute the notebooks"
for notebook in LinearClassifierDemo DomainSimilarityDemo; do
    page=feature/$notebook.html
    if [ ! -e "$page" ] || [ $notebook.ipynb -nt "$page" ] ||
        [ -n "$(find feature -name '*.npy' -newer "$page")" ]; then
        .venv/bin/jupyter nbconvert --to=html --execute --output-dir=feature $notebook.ipynb \
            2>feature/$notebook.log || { cat feature/$notebook.log >&2; exit 1; }
    fi
    echo "$page"
done

.venv/bin/python - $SOURCES toy_birds <<'EOF'
import json
import sys
from pathlib import Path

from slim.evaluation.predictions import read_results

print("\n| dataset | training images | validation images | classes | steps | top-1 | top-5 | chance |")
print("| --- | --- | --- | --- | --- | --- | --- | --- |")
for name in sys.argv[1:]:
    counted = json.loads(Path("data", name, "dataset.json").read_text())
    train, validation = (counted["splits"][split]["samples"] for split in ("train", "validation"))
    results = read_results(Path("checkpoints", name))
    print(
        f"| {name} | {train} | {validation} | {counted['classes']} | {results['step']} "
        f"| {results['accuracy']:.1%} | {results['recall_5']:.1%} | {1 / counted['classes']:.1%} |"
    )
EOF
.venv/bin/python - "$SOURCES" "$TARGETS" <<'EOF'
import sys

from slim.transfer.domain_similarity import similarity_table
from slim.transfer.features import load_features
from slim.transfer.linear_classifier import classify
from slim.transfer.prototypes import load_prototypes, side_by_side

sources, targets = (names.split() for names in sys.argv[1:])
print("\n| logistic regression on features from |", " | ".join(targets), "|")
print("| --- |" + " --- |" * len(targets))
for source in sources:
    cells = []
    for target in targets:
        splits = [load_features(f"feature/{source}", target, split) for split in ("train", "val")]
        cells.append(f"{classify(*splits).accuracy:.1%}")
    print(f"| {source} |", " | ".join(cells), "|")
domains = {
    name: side_by_side([load_prototypes(f"feature/{network}", name) for network in sources])
    for name in sources + targets
}
table = similarity_table(domains, [*sources, "+".join(sources)], targets, min_count=1)
print(f"\n{table}")
EOF
cat <<EOF

images and shards: data; checkpoints and event files: checkpoints; features and notebooks: feature
training curves: .venv/bin/tensorboard --logdir=checkpoints --reload_multifile=true
EOF

if [ "$*" = --full ]; then
    echo
    echo "== full, 1 of 4: the long tail: fine-tune on at most 15 images per class of toy_inat"
    .venv/bin/python -m slim.datasets.balance --dataset_name=toy_inat --max_per_class=15
    .venv/bin/python convert_dataset.py --dataset_name=toy_inat_balanced_15 --num_shards=4
    fine_tune toy_inat toy_inat toy_inat_longer 2  # for comparison
    fine_tune toy_inat toy_inat_balanced_15 toy_inat_balanced_15 4
    for name in toy_inat toy_inat_longer toy_inat_balanced_15; do
        evaluate "$name" toy_inat "checkpoints/$name/per_class" --per_class
    done
    .venv/bin/python -m slim.long_tail --names=before,longer,balanced --group_bounds=15,35 \
        checkpoints/toy_inat/per_class checkpoints/toy_inat_longer/per_class \
        checkpoints/toy_inat_balanced_15/per_class

    echo "== full, 2 of 4: resolution: toy_inat at $SMALLER pixels, compared with $SIZE"
    train_source toy_inat toy_inat_$SMALLER 400 12.5 --train_image_size=$SMALLER
    for name in toy_inat_$SMALLER toy_inat; do
        evaluate "$name" toy_inat "checkpoints/$name/sizes" --eval_image_size=$SMALLER,$SIZE
    done

    echo "== full, 3 of 4: the union of the sources, and its classes nearest to the targets"
    .venv/bin/python -m slim.datasets.union --dataset_names="$(echo $SOURCES | tr ' ' ,)"
    .venv/bin/python convert_dataset.py --dataset_name="$UNION" --num_shards=4
    train_source "$UNION" "$UNION" 800 12.5
    .venv/bin/python feature_extraction.py --checkpoint_path="./checkpoints/$UNION" \
        --dataset_name="$(echo $SOURCES $TARGETS | tr ' ' ,)" --image_size=$SIZE
    .venv/bin/python -m slim.transfer.source_selection --feature_dir="feature/$UNION" \
        --sources="$(echo $SOURCES | tr ' ' ,)" --targets="$(echo $TARGETS | tr ' ' ,)" \
        --top_k=14 --min_count=1 --output_name=toy_selected
    .venv/bin/python convert_dataset.py --dataset_name=toy_selected --num_shards=4
    # The selection has about as many classes and images as each source.
    train_source toy_selected toy_selected 400 12.5

    echo "== full, 4 of 4: the transfer study"
    for name in $TARGETS; do
        .venv/bin/python convert_dataset.py --dataset_name="$name" --num_shards=4
    done
    .venv/bin/python -m slim.transfer.study --image_size=$SIZE --min_count=1 --batch_size=32 \
        --sources="$(echo $SOURCES "$UNION" toy_selected | tr ' ' ,)" \
        --targets="$(echo $TARGETS | tr ' ' ,)" --num_workers=2 \
        --fine_tune --fine_tune_steps=60 --fine_tune_flags="$STUDY"
fi
