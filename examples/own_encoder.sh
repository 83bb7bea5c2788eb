#!/bin/sh
# Trains an encoder on your own molecules, starting from nothing, fine-tunes it with another objective, and serves it.
#   pip install 'birnn-serving[export,service,cpu]'
#   sh own_encoder.sh molecules.smi build/mine
# HIDDEN and EPOCHS make it larger; with 62 molecules it only shows the way.
set -eu
molecules=$1 out=$2

# 1. Learn the language of SMILES: fill in tokens that are masked.
birnn train "$molecules" -o "$out/first" --architecture bigru --tokenizer smiles --hidden-size "${HIDDEN:-64}" \
  --pooling mean+max --objective masked --minimum-count 1 --validation-share 0.1 --epochs "${EPOCHS:-3}"

# 2. Fine-tune: go on from those weights and learn descriptors that RDKit computes.
birnn train "$molecules" -o "$out/tuned" --start-from "$out/first" --architecture bigru --tokenizer smiles \
  --hidden-size "${HIDDEN:-64}" --pooling mean+max --objective descriptors --minimum-count 1 --validation-share 0.1 \
  --epochs "${EPOCHS:-3}"

# 3. Export a bundle. The graph must agree with PyTorch in float64, or nothing is written.
birnn export "$out/tuned" -o "$out/models/mine/1"
birnn models verify "$out/models/mine/1"

echo "now: birnn serve --models $out/models, and birnn encode --encoder mine CCO"
