"""What tests of ``lm4ve try`` share: folders of pictures, one a class, and features."""

import subprocess
import sys

import numpy as np
import pandas as pd
from PIL import Image
from transformers import LlamaConfig, LlamaModel

from lm4ve.study.tokens.features import FeatureExtraction
from tests.helpers.processes import environment

rng = np.random.default_rng(0)


def write_folder(root, **splits):
    """Write pictures of noise: split -> class -> how many; '' for no folder of a split."""
    for split, classes in splits.items():
        for label, count in classes.items():
            folder = root / split.strip('_') / label
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(256, size=(9, 12, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f'{i}.png')
    return root


def compute_features(encoder, data, cache, **options):
    """Run an encoder over data; options are those of ``FeatureExtraction``."""
    return FeatureExtraction(encoder, data, cache, **options).extract()


def run_try(encoder, folder):
    """Run ``lm4ve try`` of an untrained encoder in a process; return its table of results.

    Encoder and heads run on the GPU, if there is one, with the default of ``--workers``.
    """
    write_folder(folder / 'data', _=dict(a=20, b=20))
    sizes = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2)
    config = LlamaConfig(**sizes, vocab_size=8, num_hidden_layers=1)
    LlamaModel(config).save_pretrained(folder / 'llm')
    command = [sys.executable, '-m', 'lm4ve', 'try', encoder, 'data']
    command += '--encoder-checkpoint none --block llm --work-dir out'.split()
    command += '--cache cache --seeds 2 --variants linear knn frozen'.split()
    done = subprocess.run(
        command, cwd=folder, env=environment(real=True), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return pd.read_csv(folder / 'out/results.csv')


def break_tables(path):
    """Damage a JPEG's Huffman table: its header and both of its ends stay whole."""
    data = bytearray(path.read_bytes())
    table = data.index(b'\xff\xc4')
    data[table + 5 : table + 25] = b'\xff' * 20
    path.write_bytes(data)
