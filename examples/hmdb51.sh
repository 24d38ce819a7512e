#!/bin/sh
# The published comparison on HMDB51, from the downloads to one table: SCUBA, SCUFO, Confl-FG and contrasted accuracy of
# ALBAR and of the methods that it is compared with. A stopped run continues with the same command.
#
#   DOWNLOADS/hmdb51_org                  videos, one folder a class
#   DOWNLOADS/testTrainMulti_7030_splits  the lists of the splits
#   DOWNLOADS/ReCompress_Videos           JHMDB's videos
#   DOWNLOADS/puppet_mask                 JHMDB's masks
#   DOWNLOADS/places365                   pictures (test_256 in the paper)
#   DOWNLOADS/vqgan                       pictures (made with VQGAN-CLIP in the paper; leave the folder out: no such set)
#   DOWNLOADS/people.csv                  boxes of people: video,frame,left,top,right,bottom (actor_cutmix, sdn)
#   DOWNLOADS/resnet50_places365.pth.tar  from places2.csail.mit.edu (sdn)
#   DOWNLOADS/resnet50_imagenet.pth       torchvision's file (stillmix)
#
# 3 seeds of 11 methods are 33 trainings of Video Swin-T. METHODS and SEEDS choose some of them.
set -eu
DOWNLOADS=${DOWNLOADS:-downloads}
METHODS=${METHODS:-cross_entropy mixup videomix sdn be actor_cutmix fame stillmix two_streams baseline albar}
SEEDS=${SEEDS:-0 1 2}
UNSTILL=${UNSTILL:-unstill}
# further options, for small trials: of convert, train, the reference network, still-bank, scene-labels, ood, evaluate
CONVERT=${CONVERT:-} TRAIN=${TRAIN:-} REFERENCE=${REFERENCE:-} BANK=${BANK:-} SCENES=${SCENES:-} OOD=${OOD:-}
EVALUATE=${EVALUATE:-}

lists="--labels $DOWNLOADS/testTrainMulti_7030_splits"
train=data/hmdb51/train
wants() { case " $METHODS " in *" $1 "*) true ;; *) false ;; esac; }

# videos -> shards
$UNSTILL convert "$DOWNLOADS/hmdb51_org" $train $lists --split train1 $CONVERT
$UNSTILL convert "$DOWNLOADS/hmdb51_org" data/hmdb51/test $lists --split test1 --classes $train/dataset.json $CONVERT

# SCUBA before three kinds of background, and Confl-FG
build() { # NAME OPTION...
    name=$1
    shift
    $UNSTILL ood build "$DOWNLOADS/ReCompress_Videos" "$DOWNLOADS/puppet_mask" bias/hmdb51/"$name" --mask-from jhmdb \
        $lists --split test1 --allow-missing --like $train "$@" $OOD
}
scuba="stripe bias/hmdb51/stripe/shards"
build stripe
for pictures in places365 vqgan; do
    if [ -d "$DOWNLOADS/$pictures" ]; then
        build $pictures --backgrounds "$DOWNLOADS/$pictures"
        scuba="$scuba $pictures bias/hmdb51/$pictures/shards"
    fi
done
build conflfg --kind conflfg

# what some methods need besides the videos
if wants sdn; then
    $UNSTILL scene-labels $train data/hmdb51/scenes.npz --places "$DOWNLOADS/resnet50_places365.pth.tar" $SCENES
fi
if wants sdn || wants actor_cutmix; then
    cp "$DOWNLOADS/people.csv" data/hmdb51/people.csv
fi
if wants stillmix && [ ! -f data/hmdb51/stills.safetensors ]; then
    $UNSTILL train hmdb51_reference --model.weights "$DOWNLOADS/resnet50_imagenet.pth" $REFERENCE
    $UNSTILL still-bank $train data/hmdb51/stills.safetensors --reference runs/hmdb51_reference --tau 0.1 $BANK
fi

# trainings, one after another; on several machines give each its own METHODS or SEEDS
for seed in $SEEDS; do
    for method in $METHODS; do
        $UNSTILL train hmdb51_"$method" --seed "$seed" --out runs/hmdb51_"$method"_seed"$seed" $TRAIN
    done
done

# each model by the views of its paper's code, then all in one table with the spread over seeds
sets="--iid data/hmdb51/test --scuba $scuba --conflfg bias/hmdb51/conflfg/shards"
truth="--conflfg-truth bias/hmdb51/conflfg/truth.csv"
mkdir -p results/hmdb51/predictions
for method in $METHODS; do
    case $method in albar | baseline) views=albar ;; *) views=stillmix ;; esac
    runs=
    for seed in $SEEDS; do runs="$runs runs/hmdb51_${method}_seed$seed"; done
    $UNSTILL evaluate $runs $sets $truth --views $views --out results/hmdb51/"$method" $EVALUATE
    cp results/hmdb51/"$method"/predictions/*.npz results/hmdb51/predictions/
done
echo '{"views": "albar and baseline: --views albar; all others: --views stillmix"}' > results/hmdb51/predictions/facts.json
$UNSTILL evaluate --logits results/hmdb51/predictions $truth --out results/hmdb51/table
