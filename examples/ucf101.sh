#!/bin/sh
# Static bias on UCF101 by the published boxes and by masks, as ALBAR's authors put them side by side: boxes let the
# background through. A stopped run continues with the same command.
#
#   DOWNLOADS/UCF-101            videos, one folder a class
#   DOWNLOADS/ucfTrainTestlist   the lists of the splits
#   DOWNLOADS/pyannot.pkl        boxes of UCF101-24
#   DOWNLOADS/masks              segmentation masks (SAM-Track in the paper); leave the folder out: boxes alone
#   DOWNLOADS/places365          pictures; leave the folder out: stripes alone
set -eu
DOWNLOADS=${DOWNLOADS:-downloads}
METHODS=${METHODS:-baseline albar}
SEEDS=${SEEDS:-0 1 2}
UNSTILL=${UNSTILL:-unstill}
# further options, for small trials
CONVERT=${CONVERT:-} TRAIN=${TRAIN:-} OOD=${OOD:-} EVALUATE=${EVALUATE:-}

train=data/ucf101/train
lists=$DOWNLOADS/ucfTrainTestlist
$UNSTILL convert "$DOWNLOADS/UCF-101" $train --labels "$lists/trainlist01.txt" $CONVERT
$UNSTILL convert "$DOWNLOADS/UCF-101" data/ucf101/test --labels "$lists/testlist01.txt" \
    --classes $train/dataset.json $CONVERT

build() { # NAME MASKS OPTION...
    name=$1 masks=$2
    shift 2
    $UNSTILL ood build "$DOWNLOADS/UCF-101" "$masks" bias/ucf101/"$name" --labels "$lists/testlist01.txt" \
        --like $train "$@" $OOD
    scuba="$scuba $name bias/ucf101/$name/shards"
}
kinds=stripe
if [ -d "$DOWNLOADS/places365" ]; then kinds="$kinds places365"; fi
scuba=
for kind in $kinds; do
    behind=
    if [ "$kind" != stripe ]; then behind="--backgrounds $DOWNLOADS/$kind"; fi
    # the first box of a frame, cut to the frames with boxes: the published, old set
    build boxes_"$kind" "$DOWNLOADS/pyannot.pkl" --mask-from boxes $behind
    if [ -d "$DOWNLOADS/masks" ]; then
        build masks_"$kind" "$DOWNLOADS/masks" --trim on $behind
    fi
done
if [ -d "$DOWNLOADS/masks" ]; then
    $UNSTILL ood check "$DOWNLOADS/UCF-101" "$DOWNLOADS/masks" bias/ucf101/review.csv \
        --boxes "$DOWNLOADS/pyannot.pkl" --labels "$lists/testlist01.txt"
fi

runs=
for seed in $SEEDS; do
    for method in $METHODS; do
        $UNSTILL train ucf101_"$method" --seed "$seed" --out runs/ucf101_"$method"_seed"$seed" $TRAIN
        runs="$runs runs/ucf101_${method}_seed$seed"
    done
done
$UNSTILL evaluate $runs --iid data/ucf101/test --scuba $scuba --views albar --out results/ucf101 $EVALUATE
