#!/bin/sh
# The main job in small, on a machine that has only Python 3.10 to 3.13: draws the toy domains,
# trains Inception-V3 from random weights on the source, fine-tunes its last layer on the target,
# evaluates both. What is done is not done again; an interrupted run goes on.
set -eu
cd "$(dirname "$0")"

SOURCE=toy_inat
TARGET=toy_birds
# At 107 pixels Inception-V3 costs an eighth of what it costs at 299.
export TRAIN_IMAGE_SIZE=107 EVAL_IMAGE_SIZE=107 TRAIN_BATCH_SIZE=32 LOG_STEPS=20
# Batch norm's averages must settle in a few hundred steps, not in tens of thousands.
SHORT='--batch_norm_decay=0.95 --learning_rate_decay_type=polynomial'

./install.sh

echo "== 1 of 4: the toy domains, drawn and converted"
.venv/bin/python -m slim.datasets.toy
for name in $SOURCE $TARGET; do
    .venv/bin/python convert_dataset.py --dataset_name="$name" --num_shards=4
done

echo "== 2 of 4: Inception-V3 on $SOURCE, from random weights"
DATASET_NAME=$SOURCE CHECKPOINT_PATH='' TRAINABLE_SCOPES='' MAX_STEPS=600 \
    OPTIMIZER=adam LR=0.002 END_LR=0.00002 EPOCHS_PER_DECAY=19 \
    ./train.sh $SHORT --opt_epsilon=0.001

echo "== 3 of 4: its last layer on $TARGET, all below it as learned on $SOURCE"
DATASET_NAME=$TARGET CHECKPOINT_PATH=./checkpoints/$SOURCE MAX_STEPS=200 \
    LR=0.05 EPOCHS_PER_DECAY=17 \
    ./train.sh $SHORT

echo "== 4 of 4: evaluation"
for name in $SOURCE $TARGET; do
    result=checkpoints/$name/eval.txt
    if [ ! -e "$result" ] || [ "checkpoints/$name/checkpoint" -nt "$result" ]; then
        DATASET_NAME=$name ./eval.sh --max_number_of_evaluations=1 >"$result.part"
        mv "$result.part" "$result"
    fi
    cat "$result"
done

.venv/bin/python - $SOURCE $TARGET <<'EOF'
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
cat <<EOF

images and shards: data/$SOURCE, data/$TARGET
checkpoints and event files: checkpoints/$SOURCE, checkpoints/$TARGET
to watch it: .venv/bin/tensorboard --logdir=checkpoints
EOF
