"""A runner's first iteration ends a training whose block does nothing."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from lm4ve.errors import UserError
from tests.necks.test_usage import NECK, Host

pytestmark = pytest.mark.usefixtures('quick_mmengine')


def loader(data: list, shuffle: bool) -> dict:
    return dict(
        dataset=data,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        batch_size=2,
        collate_fn=dict(type='default_collate'),
    )


def train(folder: Path, model, hook: bool = True, optim: dict | None = None, **fields) -> Runner:
    data = [dict(inputs=torch.randn(5, 16)) for _ in range(4)]
    hooks = dict(custom_hooks=[dict(type='lm4ve.BlockInUseHook')]) if hook else {}
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader(data, shuffle=True),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper={'optimizer': dict(type='SGD', lr=0.01), **(optim or {})},
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        experiment_name=folder.name,
        **hooks,
        **fields,
    )
    runner.train()
    return runner


@pytest.mark.parametrize('uses, said', [('never', 'did not run'), ('drops', 'not reach the loss')])
def test_nothing_is_saved_of_a_training_without_the_block(tmp_path, uses, said):
    with pytest.raises(UserError, match=said):
        train(tmp_path, Host(uses))
    assert not [*tmp_path.rglob('*.pth')]


@pytest.mark.parametrize('uses', ['never', 'drops'])
def test_accumulation_does_not_delay_the_error(tmp_path, uses):
    with pytest.raises(UserError, match='model.neck'):
        train(tmp_path, Host(uses), optim=dict(accumulative_counts=4))


@pytest.mark.parametrize('optim', [{}, dict(accumulative_counts=2)], ids=str)
def test_a_block_in_use_trains(tmp_path, optim):
    assert train(tmp_path, Host(), optim=optim).iter == 2


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
        return dict(loss=self.stem.weight.sum() * 0.0) if self.seen == 1 else losses


def test_a_batch_without_truth_is_passed_over(tmp_path):
    with pytest.raises(UserError, match='not reach the loss'):
        train(tmp_path, WithoutTruth('drops'), optim=dict(accumulative_counts=4))
    assert train(tmp_path, WithoutTruth(), optim=dict(accumulative_counts=4)).iter == 2


class TokensFirst(torch.nn.Linear):
    """As mmpretrain's ViT: says how many tokens are no patches."""

    num_extra_tokens = 1
    out_type = 'raw'


class NormsFirst(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(16, 16), torch.nn.LayerNorm(16))


class WithBackbone(Host):
    def __init__(self, backbone, **neck) -> None:
        super().__init__(**neck)
        self.backbone, self.stem = backbone, torch.nn.Identity()

    def forward(self, inputs, data_samples=None, mode='loss'):
        return super().forward(self.backbone(inputs))


@pytest.mark.parametrize('extra, warnings', [(0, 1), (1, 0)])
def test_a_mean_over_class_tokens_is_a_warning(tmp_path, monkeypatch, extra, warnings):
    said = []
    monkeypatch.setattr('lm4ve.runner.block_in_use.print_log', lambda text, **_: said.append(text))
    options = dict(out_type='avg_featmap', num_extra_tokens=extra)
    train(tmp_path, WithBackbone(TokensFirst(16, 16), **options))
    assert len(said) == warnings and all('neck.num_extra_tokens=1' in s for s in said)


def test_class_tokens_are_not_drawn(tmp_path):
    def drawing(extra, fraction=0.5):
        return WithBackbone(TokensFirst(16, 16), train_queries=fraction, num_extra_tokens=extra)

    train(tmp_path / 'all', drawing(1))
    with pytest.raises(UserError, match='draws from the first 1 tokens.*num_extra_tokens=1'):
        train(tmp_path / 'mixed', drawing(0))


def test_a_norm_before_the_neck_is_a_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('lm4ve.necks.usage.print_log', lambda text, **_: said.append(text))
    train(tmp_path, WithBackbone(NormsFirst()))
    assert len(said) == 1 and 'model.neck is already normalized' in said[0]


class BuildsNoNeck(Host):
    """As mmpretrain's HuggingFaceClassifier: it takes any argument."""

    def __init__(self, **kwargs) -> None:
        super().__init__(guard=False)
        del self.neck
        self.uses = 'never'


def test_a_neck_that_the_host_has_not_built_is_named_before_training(tmp_path):
    with pytest.raises(UserError, match=r'model.neck of the config: BuildsNoNeck'):
        train(tmp_path, BuildsNoNeck(), cfg=dict(model=dict(type='BuildsNoNeck', neck=NECK)))


class Predicts(Host):
    def forward(self, inputs, data_samples=None, mode='predict'):
        super().forward(inputs)
        return [dict(score=1.0)] * len(inputs)


def test_a_runner_that_evaluates_asks_nothing(tmp_path):
    runner = Runner(
        model=Predicts('never'),
        work_dir=str(tmp_path),
        test_dataloader=loader([dict(inputs=torch.randn(5, 16))], shuffle=False),
        test_cfg=dict(),
        test_evaluator=dict(type='DumpResults', out_file_path=str(tmp_path / 'out.pkl')),
        custom_hooks=[dict(type='lm4ve.BlockInUseHook')],
        experiment_name=tmp_path.name,
    )
    runner.test()


def test_hosts_that_never_call_a_neck_are_refused_by_name():
    pytest.importorskip('mmaction')
    from mmengine.registry import MODELS

    graph = dict(layout='coco', mode='stgcn_spatial')
    backbone = dict(type='STGCN', graph_cfg=graph)
    head = dict(type='GCNHead', num_classes=3, in_channels=256)
    host = dict(type='mmaction.RecognizerGCN', backbone=backbone, cls_head=head)
    MODELS.build(host)
    with pytest.raises(UserError, match='RecognizerGCN builds a neck and never calls it'):
        MODELS.build(dict(host, neck=NECK))


def test_a_hugging_face_classifier_refuses_a_neck():
    pytest.importorskip('mmpretrain')
    from mmengine.registry import MODELS

    with pytest.raises(UserError, match='HuggingFaceClassifier builds no neck'):
        MODELS.build(dict(type='mmpretrain.HuggingFaceClassifier', model_name='tiny', neck=NECK))
