#!/bin/sh
# The paper in small, on a machine that has only Python 3.10 to 3.13: draws toy domains, trains
# Inception-V3 from random weights on two sources, fine-tunes its last layer on a target, evaluates,
# extracts features, and runs both notebooks on them. What is done is not done again; an interrupted
# run goes on.
set -eu
cd "$(dirname "$0")"

SOURCES='toy_inat toy_imagenet'
TARGETS='toy_birds toy_flowers toy_cars'
# At 107 pixels Inception-V3 costs an eighth of what it costs at 299.
SIZE=107
export TRAIN_IMAGE_SIZE=$SIZE EVAL_IMAGE_SIZE=$SIZE TRAIN_BATCH_SIZE=32 LOG_STEPS=20
# Batch norm's averages must settle in a few hundred steps, not in tens of thousands.
SHORT='--batch_norm_decay=0.95 --learning_rate_decay_type=polynomial'

./install.sh

echo "== 1 of 6: the toy domains, drawn and converted"
.venv/bin/python -m slim.datasets.toy
for name in $SOURCES toy_birds; do
    .venv/bin/python convert_dataset.py --dataset_name="$name" --num_shards=4
done

for name in $SOURCES; do
    echo "== 2 of 6: Inception-V3 on $name, from random weights"
    DATASET_NAME=$name CHECKPOINT_PATH='' TRAINABLE_SCOPES='' MAX_STEPS=400 \
        OPTIMIZER=adam LR=0.002 END_LR=0.00002 EPOCHS_PER_DECAY=12.5 \
        ./train.sh $SHORT --opt_epsilon=0.001
done

echo "== 3 of 6: its last layer on toy_birds, all below it as learned on toy_inat"
DATASET_NAME=toy_birds CHECKPOINT_PATH=./checkpoints/toy_inat MAX_STEPS=200 \
    LR=0.05 EPOCHS_PER_DECAY=17 \
    ./train.sh $SHORT

echo "== 4 of 6: evaluation"
for name in $SOURCES toy_birds; do
    result=checkpoints/$name/eval.txt
    if [ ! -e "$result" ] || [ "checkpoints/$name/checkpoint" -nt "$result" ]; then
        DATASET_NAME=$name ./eval.sh --max_number_of_evaluations=1 >"$result.part"
        mv "$result.part" "$result"
    fi
    cat "$result"
done

echo "== 5 of 6: features of all domains, by each source's network"
for name in $SOURCES; do
    .venv/bin/python feature_extraction.py --checkpoint_path=./checkpoints/"$name" \
        --dataset_name="$(echo $SOURCES $TARGETS | tr ' ' ,)" --image_size=$SIZE --merge_splits
done

echo "== 6 of 6: the notebooks"
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
import re
import sys
from pathlib import Path

print("\n| dataset | training images | validation images | classes | steps | top-1 | top-5 | chance |")
print("| --- | --- | --- | --- | --- | --- | --- | --- |")
for name in sys.argv[1:]:
    counted = json.loads(Path("data", name, "dataset.json").read_text())
    train, validation = (counted["splits"][split]["samples"] for split in ("train", "validation"))
    result = Path("checkpoints", name, "eval.txt").read_text()
    step, top_1, top_5 = re.match(r"step (\d+): \S+ ([\d.]+), \S+ ([\d.]+)", result).groups()
    print(
        f"| {name} | {train} | {validation} | {counted['classes']} | {step} "
        f"| {float(top_1):.1%} | {float(top_5):.1%} | {1 / counted['classes']:.1%} |"
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
print("| --- |", " --- |" * len(targets))
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
to watch it: .venv/bin/tensorboard --logdir=checkpoints --reload_multifile=true
EOF
