#!/bin/sh
# What an encoder is good for on HMDB51: linear probe and fine-tuning on its three splits, and the means, as Choi et al.
# report them for Mini-Kinetics-200. A stopped run continues with the same command.
#
#   ENCODER                                 run folder of the encoder, such as runs/choi_sdn
#   DOWNLOADS/hmdb51_org                    videos, one folder a class
#   DOWNLOADS/testTrainMulti_7030_splits    the lists of the splits
set -eu
ENCODER=${ENCODER:?give the run folder of the encoder}
DOWNLOADS=${DOWNLOADS:-downloads}
SPLITS=${SPLITS:-1 2 3}
UNSTILL=${UNSTILL:-unstill}
# further options, for small trials
CONVERT=${CONVERT:-} TRAIN=${TRAIN:-} TRANSFER=${TRANSFER:-}

lists="--labels $DOWNLOADS/testTrainMulti_7030_splits"
trains= tests= runs=
for split in $SPLITS; do
    data=data/hmdb51/split$split
    $UNSTILL convert "$DOWNLOADS/hmdb51_org" "$data/train" $lists --split "train$split" $CONVERT
    $UNSTILL convert "$DOWNLOADS/hmdb51_org" "$data/test" $lists --split "test$split" \
        --classes "$data/train/dataset.json" $CONVERT
    trains="$trains $data/train" tests="$tests $data/test"
done
$UNSTILL transfer "$ENCODER" --train $trains --test $tests --out results/hmdb51_probe.json $TRANSFER

for split in $SPLITS; do
    run=runs/hmdb51_finetune_split$split
    $UNSTILL train hmdb51_finetune --data "data/hmdb51/split$split/train" --model.weights "$ENCODER" --out "$run" $TRAIN
    runs="$runs $run"
done
$UNSTILL transfer $runs --fine-tuned --test $tests --out results/hmdb51_finetune.json $TRANSFER
