"""A runner ends a training whose block does nothing."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from lm4ve.errors import UserError
from tests.helpers.logs import record_logs
from tests.helpers.necks.host import NECK, Host
from tests.helpers.runner.toy import make_runner


def train(folder: Path, model, optim: dict | None = None, **fields) -> Runner:
    data = [dict(inputs=torch.randn(5, 16)) for _ in range(4)]
    fields['optim_wrapper'] = {'optimizer': dict(type='SGD', lr=0.01), **(optim or {})}
    fields['custom_hooks'] = [dict(type='lm4ve.BlockInUseHook')]
    runner = make_runner(
        folder, model, data, 2, collate_fn=dict(type='default_collate'), **fields
    )
    runner.train()
    return runner


@pytest.fixture
def warnings(monkeypatch):
    """The warnings of the hook."""
    return record_logs(monkeypatch, 'lm4ve.necks.usage')


@pytest.mark.parametrize(
    'uses, words', [('never', 'did not run'), ('drops', 'not reach the loss')]
)
@pytest.mark.parametrize('optim', [{}, dict(accumulative_counts=4)], ids=str)
def test_nothing_is_saved_of_a_training_without_the_block(tmp_path, uses, words, optim):
    with pytest.raises(UserError, match=f'model.neck.*{words}'):
        train(tmp_path, Host(uses), optim)
    assert not list(tmp_path.rglob('*.pth'))


def test_frozen_mappers_train_the_rest_and_must_run(tmp_path):
    def frozen(uses: str) -> Host:
        model = Host(uses, norm_cfg=None)
        model.neck.requires_grad_(False)
        model.stem.requires_grad_(False)
        return model

    assert train(tmp_path, frozen('yes')).iter == 2
    with pytest.raises(UserError, match='did not run'):
        train(tmp_path, frozen('never'))


class WithoutTruth(Host):
    """Its first batch has no truth: a loss of zero, without a path to the block."""

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.seen = getattr(self, 'seen', 0) + 1
        losses = super().forward(inputs)
        if self.seen == 1:
            return dict(loss=self.stem.weight.sum() * 0.0)
        return losses


def test_a_batch_without_truth_is_passed_over(tmp_path):
    accumulate = dict(accumulative_counts=4)
    with pytest.raises(UserError, match='not reach the loss'):
        train(tmp_path, WithoutTruth('drops'), accumulate)
    assert train(tmp_path, WithoutTruth(), accumulate).iter == 2


class TokensFirst(torch.nn.Linear):
    """As mmpretrain's ViT: says how many tokens are no patches."""

    num_extra_tokens = 1
    out_type = 'raw'


class WithBackbone(Host):
    def __init__(self, backbone, **neck) -> None:
        super().__init__(**neck)
        self.backbone = backbone
        self.stem = torch.nn.Identity()

    def forward(self, inputs, data_samples=None, mode='loss'):
        return super().forward(self.backbone(inputs))


@pytest.mark.parametrize('extra, count', [(0, 1), (1, 0)])
def test_a_mean_over_class_tokens_is_a_warning(tmp_path, warnings, extra, count):
    options = dict(out_type='avg_featmap', num_extra_tokens=extra)
    train(tmp_path, WithBackbone(TokensFirst(16, 16), **options))
    assert len(warnings) == count
    assert all('neck.num_extra_tokens=1' in text for text in warnings)


def test_a_host_that_needs_a_map_takes_no_vector(tmp_path):
    model = Host(out_type='avg_featmap')
    model.decode_head = torch.nn.Identity()
    with pytest.raises(
        UserError,
        match="model.neck.out_type='avg_featmap' gives a vector, but Host reads a map",
    ):
        train(tmp_path, model)


def test_unmatched_custom_keys_are_a_warning(tmp_path, warnings):
    keys = {'stem.bias': dict(lr_mult=2.0), 'cls_tokn': dict(decay_mult=0.0)}
    cfg = dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys=keys)))
    train(tmp_path, Host(), cfg=cfg)
    (warning,) = warnings
    assert 'cls_tokn' in warning and 'stem' not in warning


class BuildsNoNeck(Host):
    """As mmpretrain's HuggingFaceClassifier: it takes any argument."""

    def __init__(self, **kwargs) -> None:
        super().__init__(guard=False)
        del self.neck
        self.uses = 'never'


def test_a_neck_that_the_host_has_not_built_is_named_before_training(tmp_path):
    with pytest.raises(UserError, match=r'model.neck of the config: BuildsNoNeck'):
        train(
            tmp_path,
            BuildsNoNeck(),
            cfg=dict(model=dict(type='BuildsNoNeck', neck=NECK)),
        )


GCN = dict(
    type='mmaction.RecognizerGCN',
    backbone=dict(type='STGCN', graph_cfg=dict(layout='coco', mode='stgcn_spatial')),
    cls_head=dict(type='GCNHead', num_classes=3, in_channels=256),
)


HOSTS = [
    (GCN, 'RecognizerGCN never calls its neck'),
    (
        dict(type='mmpretrain.HuggingFaceClassifier', model_name='a'),
        'Classifier builds no neck',
    ),
    (
        dict(type='mmpretrain.TimmClassifier', model_name='resnet18'),
        'Classifier builds no neck',
    ),
]


@pytest.mark.parametrize('host, words', HOSTS)
def test_hosts_that_never_call_a_neck_are_refused(host, words):
    pytest.importorskip(host['type'].partition('.')[0])
    with pytest.raises(UserError, match=words):
        MODELS.build(dict(host, neck=NECK))
