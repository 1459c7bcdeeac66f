#!/bin/sh
# The adapters that mini_losses.yaml compares: each loss from three seeds, with equal steps, dropout and draws. About
# 20 minutes of one core each; begun again, it goes on where it was interrupted.
set -eu
for seed in 0 1 2; do
    for objective in nft ppd; do
        out=runs/mini/losses/$objective-$seed
        [ -e "$out/adapter.safetensors" ] && continue
        resume=
        [ -e "$out/checkpoint.pt" ] && resume=--resume
        python -m training.train_dpo --config training/configs/mini_nft.yaml --objective "$objective" \
            --seed "$seed" --user_dropout 0.1 --steps 1000 --export_strength 1 --output_dir "$out" $resume
    done
done
python -m training.rivals --config training/configs/mini_losses.yaml
