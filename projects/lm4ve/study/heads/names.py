"""Short names of what a study of heads is about, as sentences and titles give them."""

import os

from lm4ve.study.heads.candidates import words_of_layers
from lm4ve.study.heads.head import HeadSpec
from lm4ve.study.sentence import join


def words_of_shots(shots: int) -> str:
    """Return a number of shots in words: '5 pictures of each class'."""
    noun = 'picture' if shots == 1 else 'pictures'
    return f'{shots} {noun} of each class'


def name_block(head: HeadSpec) -> str:
    """Return the name of a frozen block: 'layer 5 of llama-7b', 'the last layer of gpt2'.

    Args:
        head (HeadSpec): A head with a block of a language model.
    """
    model = short_name(str(head.block['checkpoint']))
    layers = head.block['layers']
    if tuple(layers) == (-1,):
        words = f'the last layer of {model}'
    elif len(layers) == 1:
        words = f'layer {layers[0]} of {model}'
    else:
        words = f'layers {words_of_layers(layers)} of {model}'
    kept = head.block.get('heads')
    if kept is None:
        return words
    noun = 'head' if len(kept) == 1 else 'heads'
    return f'{words} with {noun} {join([str(one) for one in kept])}'


def short_name(source: str) -> str:
    """Return the part of a path or an id that a reader knows it by.

    It is the last part, of a table with its folder: 'package:gpt2' and '/models/gpt2' are
    'gpt2', 'data/digits/pictures.csv' is 'digits/pictures.csv'. A config has no ending.
    """
    path = os.path.abspath(source.rpartition(':')[2])
    folder, name = os.path.split(path)
    if name.endswith('.csv'):
        return f'{os.path.basename(folder)}/{name}'
    return name.removesuffix('.py')


def name_data(source: str, encoder: str) -> str:
    """Return the short name of data; 'its own data' where encoder and data are one config.

    Args:
        source (str): What the user named.
        encoder (str): The encoder that it named.
    """
    name = short_name(source)
    if name == short_name(encoder):
        return 'its own data'
    return name
