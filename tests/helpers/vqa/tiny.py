"""A METER of a few thousand parameters, with a tokenizer of a few words."""

import json
from pathlib import Path

import torch
from mmengine.registry import MODELS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lm4ve.text.structures import VisionLanguageDataSample
from tests.helpers.families import FAMILIES
from tests.helpers.tiny_runs import enlarged

WORDS = 'what color is the cat dog a red blue two black white sits on mat runs'.split()
#: As RoBERTa's: padding is 1, and positions begin behind it.
SPECIAL = ['<s>', '<pad>', '</s>', '<unk>']
ANSWERS = ['yes', 'no', 'red', 'blue', '2']
SIZE = 32
BLOCK = dict(type='LLMBlock', pretrained=False, arch=FAMILIES['llama'])
NECK = dict(type='LLMBlockNeck', in_channels=16, block=BLOCK, norm_cfg=None)
HEADS = dict(
    vqa=dict(type='lm4ve.VQAHead', vocabulary=ANSWERS, in_channels=32),
    retrieval=dict(type='lm4ve.RetrievalHead', in_channels=32),
    matching=dict(type='lm4ve.MatchingHead', in_channels=32),
)
IMAGE = dict(
    model_type='clip_vision_model',
    image_size=SIZE,
    patch_size=8,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
)
TEXT = dict(
    model_type='roberta',
    vocab_size=len(SPECIAL) + len(WORDS),
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=2,
    num_attention_heads=2,
    layer_norm_eps=1e-5,
    max_position_embeddings=40,
    pad_token_id=1,
)


def write_tokenizer(
    folder: Path, words=WORDS, special=SPECIAL, model_type=None, pad_token='<pad>'
) -> str:
    """Write a tokenizer of whole words; return its folder."""
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single='<s> $A </s>',
        special_tokens=[(t, vocabulary[t]) for t in ('<s>', '</s>')],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        pad_token=pad_token,
        eos_token='</s>',
        unk_token='<unk>',
    )
    fast.save_pretrained(folder)
    if model_type is not None:
        config = json.dumps(dict(model_type=model_type))
        (Path(folder) / 'config.json').write_text(config)
    return str(folder)


def meter_config(tokenizer: str | None = None, neck: bool = False, **changes) -> dict:
    """Return the config of a tiny METER that answers questions."""
    config = dict(
        type='lm4ve.METER',
        image_encoder=dict(type='lm4ve.TransformersImageEncoder', config=IMAGE),
        text_encoder=dict(type='lm4ve.TransformersTextEncoder', config=TEXT),
        fusion=dict(
            type='lm4ve.CoAttentionFusion', embed_dims=16, num_layers=2, num_heads=2
        ),
        neck=dict(NECK) if neck else None,
        head=HEADS['vqa'],
    )
    if tokenizer is not None:
        kind = dict(type='lm4ve.VisionLanguagePreprocessor', max_length=12)
        config['data_preprocessor'] = dict(kind, tokenizer=tokenizer)
    return config | changes


def build(*args, **changes):
    """Build a tiny METER."""
    return MODELS.build(meter_config(*args, **changes))


def batch(texts, answers=None, size=SIZE, **fields) -> dict:
    """Return a batch of random images with a list of texts each, as a pipeline gives it."""
    samples = []
    for i, row in enumerate(texts):
        sample = VisionLanguageDataSample(
            metainfo=dict(text=list(row), image_id=i, **fields)
        )
        if answers is not None:
            sample.set_metainfo(dict(gt_answers=list(answers[i])))
        samples.append(sample)
    generator = torch.Generator().manual_seed(len(texts))
    images = torch.randint(256, (len(texts), 3, size, size), generator=generator)
    return dict(inputs=list(images.to(torch.uint8)), data_samples=samples)


def run(model, data, mode='tensor'):
    """Preprocess and run."""
    return model(**model.data_preprocessor(data), mode=mode)


def write_model(path: Path, model: dict, dataset: dict) -> None:
    """Write a config, and a checkpoint of large weights beside it."""
    path.write_text(f'model = {model!r}\ntest_dataloader = dict(dataset={dataset!r})\n')
    torch.manual_seed(3)
    state = enlarged(MODELS.build(model)).state_dict()
    torch.save(dict(state_dict=state), path.with_suffix('.pth'))


def write_config(path: Path, tokenizer: str, **changes) -> None:
    """Write a tiny METER with a block, and the pipeline of its tests."""
    steps = [
        dict(type='mmpretrain.LoadImageFromFile'),
        dict(type='mmpretrain.ResizeEdge', scale=SIZE),
        dict(type='mmpretrain.CenterCrop', crop_size=SIZE),
        dict(type='lm4ve.PackVisionLanguage'),
    ]
    dataset = dict(type='lm4ve.VQAFiles', pipeline=steps)
    write_model(path, meter_config(tokenizer, True, **changes), dataset)


def write_models(folder: Path, *heads: str) -> None:
    """Write the config and checkpoint of a model with each head."""
    tokenizer = write_tokenizer(folder / 'tokenizer')
    for name in heads:
        write_config(folder / f'{name}.py', tokenizer, head=HEADS[name])
