"""The comparison of a config with its small one finds whatever else than a size was replaced."""

import copy

import pytest

from tests.helpers.replaced import differences

CONFIG = dict(
    default_scope='mmpretrain',
    model=dict(
        type='lm4ve.METER',
        data_preprocessor=dict(tokenizer='FacebookAI/roberta-base', max_length=50),
        image_encoder=dict(checkpoint='openai/clip-vit-base-patch32', image_size=224),
        backbone=dict(
            arch='deit-small',
            frozen=True,
            out_indices=(3,),
            pretrained='https://a/b.pth',
        ),
        neck=[
            dict(
                type='LLMBlockNeck',
                block=dict(checkpoint='data/llm/llama-7b', layers=(-1,), dtype='auto'),
            )
        ],
    ),
    train_dataloader=dict(
        batch_size=64, num_workers=8, dataset=dict(data_root='data/imagenet')
    ),
    visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]),
)


def changed(**fields):
    """Return the config with other values of dotted fields."""
    small = copy.deepcopy(CONFIG)
    for field, value in fields.items():
        *parents, last = field.split('__')
        node = small
        for name in parents:
            node = node[int(name) if isinstance(node, list) else name]
        if value is KeyError:
            del node[last]
        else:
            node[last] = value
    return small


SIZES = [
    dict(model__data_preprocessor__max_length=20, train_dataloader__batch_size=2),
    dict(model__backbone__arch=dict(embed_dims=16, num_layers=2)),
    dict(model__neck__0__in_channels=16, train_dataloader__num_workers=0),
    dict(train_dataloader__dataset__indices=8, work_dir='/tmp/run', launcher='none'),
    dict(model__neck__0__block__dtype='float32'),
]


@pytest.mark.parametrize('fields', SIZES, ids=str)
def test_sizes_and_options_of_a_run_are_allowed(fields):
    assert not [*differences(CONFIG, changed(**fields))]


OTHERS = {
    'a folder in the place of a hub id': dict(
        model__data_preprocessor__tokenizer='/tmp/roberta'
    ),
    'nothing in the place of an address': dict(model__backbone__pretrained=None),
    'another class': dict(model__type='lm4ve.SQA3D'),
    'a class that is gone': dict(model__neck=[]),
    'another path': dict(train_dataloader__dataset__data_root='/tmp/imagenet'),
    'a truth value': dict(model__backbone__frozen=False),
    'a new path': dict(train_dataloader__dataset__ann_file='list.txt'),
    'a field that is gone': dict(model__backbone__pretrained=KeyError),
    'another language model': dict(model__neck__0__block__checkpoint='data/llm/tiny'),
    'another dtype than the machine-independent one': dict(
        model__neck__0__block__dtype='bfloat16'
    ),
    'no record of the run': dict(visualizer__vis_backends=[]),
}


@pytest.mark.parametrize('case', OTHERS)
def test_whatever_else_is_replaced_is_found(case):
    (found,) = differences(CONFIG, changed(**OTHERS[case]))
    *parents, last = next(iter(OTHERS[case])).split('__')
    assert found.startswith('.' + '.'.join([*parents, last]))
