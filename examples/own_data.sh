#!/bin/sh
# Your own videos, one folder a class, from files to a network with its model card that names what happens in a video.
# Each command can be given again: what is done is not repeated, and a stopped run continues.
#
#   VIDEOS/train/CLASS/any.mp4   and   VIDEOS/val/CLASS/any.mp4
#
#   examples/own_data.sh VIDEOS
set -eu
VIDEOS=${1:?usage: own_data.sh VIDEOS, a folder with train/CLASS/*.mp4 and val/CLASS/*.mp4}
RECIPE=${RECIPE:-own_small_albar} # or own_small (cross entropy), own, own_albar: unstill train
DATA=${DATA:-data/own} RUN=${RUN:-runs/own}
UNSTILL=${UNSTILL:-unstill}
# further options of the commands; on a CPU: TRAIN="--step.compile off"
CONVERT=${CONVERT:-} TRAIN=${TRAIN:-} EVALUATE=${EVALUATE:-} EXPORT=${EXPORT:-}

# what is there: classes, lengths, duplicates, files that will be refused
$UNSTILL audit "$VIDEOS/train"

# videos -> shards; the validation set takes the classes, and their order, from the training set
$UNSTILL convert "$VIDEOS/train" "$DATA/train" --short-side 144 $CONVERT
$UNSTILL convert "$VIDEOS/val" "$DATA/val" --short-side 144 --classes "$DATA/train/dataset.json" $CONVERT

# do still frames give the class away? far above guessing means: a network can score without reading motion
# $UNSTILL diagnose scene-bias "$DATA/train" "$DATA/val" --out "$RUN/scene-bias"

$UNSTILL train "$RECIPE" --data "$DATA/train" --validation "$DATA/val" --out "$RUN" $TRAIN
$UNSTILL evaluate "$RUN/best" --iid "$DATA/val" --out "$RUN/evaluation" $EVALUATE

# weights, classes and model card, without which nobody else can use a network
rm -rf "$RUN/model"
$UNSTILL export "$RUN/best" --out "$RUN/model" --card --evaluation "$RUN/evaluation" $EXPORT
first=$(find "$VIDEOS/val" -type f | sort | head -n 1)
$UNSTILL predict "$first" --model "$RUN/model"
