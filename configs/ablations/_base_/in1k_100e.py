# ImageNet-1k at the ablations' 100 epochs. A trial takes about a day on 8 GPUs; see
# docs/guides/ablations.md.
base = '../lm4ve/vit-s_llama_in1k.py'
metric = 'accuracy/top1'
seeds = 3
common = {'train_cfg.max_epochs': 100}
