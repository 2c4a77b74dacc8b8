"""Studies on tokens made here: what they find, and that a kill loses no digit."""

import itertools
import json
import math
import time
from importlib import import_module

import numpy as np
import pytest
import torch
from filelock import FileLock
from transformers import LlamaConfig, LlamaModel

from lm4ve.blocks import count_parameters
from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.probing.candidates import list_controls
from lm4ve.probing.data import ProbeData
from lm4ve.probing.features import Features
from lm4ve.probing.heads import BATCH, HeadSpec, build_head, count_operations
from lm4ve.probing.plan import Plan, plan_file
from lm4ve.probing.report import OWNER, claim_folder
from lm4ve.probing.results import Job, read_result
from lm4ve.probing.study import Study
from lm4ve.probing.training import Trainer
from lm4ve.probing.workers import start_workers

command = import_module('lm4ve.commands.try')  # a statement cannot name it
TOKENS, CHANNELS = 2, 4


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A block of squares: h + 9 h relu(h) of its normed input; its random one is nearly linear."""
    sizes = dict(
        hidden_size=16, intermediate_size=16, num_attention_heads=2, vocab_size=8
    )
    model = LlamaModel(LlamaConfig(**sizes, num_hidden_layers=2))
    layer = model.layers[1]
    layer.self_attn.o_proj.weight.data.zero_()
    for name, scale in dict(gate_proj=3.0, up_proj=3.0, down_proj=1.0).items():
        getattr(layer.mlp, name).weight.data = scale * torch.eye(16)
    folder = tmp_path_factory.mktemp('llm')
    model.save_pretrained(folder)
    return str(folder)


def make_features(folder, labels=None, count=900, views=1) -> Features:
    """Noise as tokens; labels are noise too, or a function of the tokens ``[n, N, C]``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shape = (views, count, TOKENS, CHANNELS)
    tokens = np.memmap(folder / 'tokens.f16', np.float16, 'w+', shape=shape)
    tokens[:] = rng.normal(size=shape)
    tokens[1:] = 1000.0
    if labels is None:
        own_labels = rng.integers(2, size=count)
    else:
        own_labels = labels(torch.from_numpy(tokens[0]).float())
    order = rng.permutation(count)
    train, val, test = np.split(order, [count // 3, count // 2])
    data = ProbeData(
        name='data',
        labels=np.asarray(own_labels, np.int64),
        splits=dict(train=train, val=val, test=test),
        classes=('<0>', '<1>'),
        fingerprint='f00d',
        items=(),
    )
    return Features(shape, data, 'f00d', folder, '<encoder>')


def study(features, checkpoint, *words, monkeypatch):
    """Run the command on features; return its sentence and results."""
    for name in ('load_encoder', 'read_data'):
        monkeypatch.setattr(command, name, lambda *a, **k: None)
    monkeypatch.setattr(command, 'extract_features', lambda *a, **k: features)
    out = features.folder / 'out'
    flags = (
        '--variants linear frozen random --rates 3e-3 1e-2 3e-2 --steps 20 --seeds 3 '
        '--workers 0'
    )
    common = ['encoder', 'data', '--block', checkpoint, '--work-dir', str(out)]
    command.main([*common, *flags.split(), *[str(word) for word in words]])
    return (out / 'sentence.txt').read_text(), (out / 'results.csv').read_bytes()


def test_labels_of_noise_show_no_difference(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path, count=4500)
    words = '--seeds', 8, '--margin', 5
    sentence, _ = study(features, checkpoint, *words, monkeypatch=monkeypatch)
    words = 'by more than 5 points on these test pictures from the linear probe and a'
    assert words in sentence
    assert 'does not help' in sentence


def test_labels_made_through_the_block_show_a_gain(tmp_path, checkpoint, monkeypatch):
    head = HeadSpec('frozen', 'frozen', '', dict(checkpoint=checkpoint))
    teacher = build_head(head, CHANNELS, 2, 0)[0].requires_grad_(False)
    signs = torch.tensor([1.0, -1.0])
    teacher.mapper_in.weight.zero_()[:4, :2] = torch.block_diag(signs, signs).T
    teacher.mapper_out.weight.zero_()[0, :4] = torch.tensor([1.0, 1.0, -1.0, -1.0])
    # About x0 x0 > x1 x1: of a linear function it has nothing.
    features = make_features(tmp_path, lambda x: teacher(x)[:, 0] > 0)
    words = '--seeds', 4, '--steps', 80
    sentence, _ = study(features, checkpoint, *words, monkeypatch=monkeypatch)
    assert 'is better than the linear probe by' in sentence
    assert 'its pre-training helps' in sentence


def test_a_channel_silent_in_training_does_not_drown_the_others(tmp_path):
    features = make_features(tmp_path)
    tokens = np.memmap(tmp_path / 'tokens.f16', np.float16, 'r+', shape=features.shape)
    tokens[..., 0] = 0
    tokens[0, features.data.splits['test'], :, 0] = 1.0
    x, _ = Trainer(features).load(features.data.splits['test'])
    assert x[..., 0].max() < 20
    assert torch.allclose(x[..., 1:].std((0, 1)), torch.ones(3), atol=0.1)


@pytest.mark.walk
def test_a_stopped_study_resumes_to_the_digit(tmp_path, checkpoint, monkeypatch):
    whole = study(
        make_features(tmp_path / 'whole'), checkpoint, monkeypatch=monkeypatch
    )
    features = make_features(tmp_path / 'torn')
    calls = []
    run = Trainer.run

    def stopped(self, job):
        if len(calls) == 20:
            raise KeyboardInterrupt
        calls.append(job)
        run(self, job)

    monkeypatch.setattr(Trainer, 'run', stopped)
    with pytest.raises(KeyboardInterrupt):
        study(features, checkpoint, monkeypatch=monkeypatch)
    done = sorted((tmp_path / 'torn/trainings').iterdir())
    assert len(done) == 20
    done[3].write_text(done[3].read_text()[:40])
    times = {path: path.stat().st_mtime_ns for path in done}
    calls.clear()

    def counted(self, job):
        calls.append(job)
        run(self, job)

    monkeypatch.setattr(Trainer, 'run', counted)
    assert study(features, checkpoint, monkeypatch=monkeypatch) == whole
    changed = [path for path in done if path.stat().st_mtime_ns != times[path]]
    assert changed == [done[3]]
    # More seeds train only what is new; --no-resume trains all.
    assert len(calls) == 3 * (3 * 2 + 3) - 19
    calls.clear()
    study(features, checkpoint, '--seeds', 4, monkeypatch=monkeypatch)
    assert [job.seed for job in calls] == [3, 3, 3]
    calls.clear()
    assert study(features, checkpoint, '--no-resume', monkeypatch=monkeypatch) == whole
    assert len(calls) == 3 * (3 * 2 + 3)


def test_seeds_of_a_trial_are_not_those_of_a_later_run(tmp_path, checkpoint):
    features = make_features(tmp_path)
    planned = []
    flags = '--steps 10 --variants frozen lora'
    common = ['e', 'd', '--block', checkpoint, *flags.split()]
    for words in (['--seeds', '2'], ['--seeds', '3'], []):
        with start_workers(features, 0) as run:
            settings = command.settings_of(command.parse_args([*common, *words]))
            made = Study.prepare(features, settings, run, 0.0)
        planned.append(made.plan.seeds)
    assert planned == [2, 3, 8]
    frozen, lora = made.heads.values()
    assert lora.trainable > frozen.trainable
    assert lora.identity != frozen.identity


def test_another_layer_reuses_what_is_trained(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path)
    study(features, checkpoint, '--layers', 1, monkeypatch=monkeypatch)
    before = {*(tmp_path / 'trainings').iterdir()}
    study(features, checkpoint, '--layers', 0, monkeypatch=monkeypatch)
    new = {*(tmp_path / 'trainings').iterdir()} - before
    # A random layer is the same in every place.
    assert len(new) == 3 * 2 + 3  # of the frozen one
    with pytest.raises(UserError, match='are the same'):
        study(features, checkpoint, '--layers', 1, -1, monkeypatch=monkeypatch)


def test_blocks_of_several_layers_and_some_heads_are_compared(tmp_path, checkpoint):
    flags = '--steps 10 --variants frozen random random-scaled --layers 1 0-1 --heads 1'
    words = ['e', 'd', '--block', checkpoint, *flags.split()]
    settings = command.settings_of(command.parse_args(words))
    with start_workers(make_features(tmp_path), 0) as run:
        heads = Study.prepare(make_features(tmp_path), settings, run, 0.0).heads
    names = ['frozen (layer 1)', 'frozen (layers 0-1)', 'random', 'random-scaled']
    assert [*heads] == names
    one, both, random, scaled = heads.values()
    assert both.operations > one.operations
    assert both.block['layers'] == scaled.block['layers'] == (0, 1)
    assert both.block['heads'] == random.block['heads'] == (1,)
    assert scaled.block['pretrained'] == 'scaled'
    assert len({head.identity for head in heads.values()}) == 4


def test_a_plan_for_single_layers_is_not_that_for_a_block_of_several(
    tmp_path, checkpoint
):
    features = make_features(tmp_path)
    files = []
    for words in ('0', '1', '0-1'):
        flags = ['e', 'd', '--block', checkpoint, '--layers', words]
        settings = command.settings_of(command.parse_args(flags))
        files.append(plan_file(features, settings))
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize('word', ['3-', '5-3', 'last', '1.0', '0-1-2'])
def test_what_is_no_layer_is_refused(word, checkpoint, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(['e', 'd', '--block', checkpoint, '--layers', word])
    assert f"'{word}' is no layer" in capsys.readouterr().err


def test_a_default_study_has_no_variant_that_must_be_named(checkpoint):
    args = command.parse_args(['e', 'd', '--block', checkpoint])
    assert 'random' in args.variants
    assert 'random-scaled' not in args.variants
    assert args.layers == [(-1,)]


def test_two_runs_at_once_are_one_too_many(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path)
    with (
        FileLock(tmp_path / 'study.lock'),
        pytest.raises(UserError, match='Another run'),
    ):
        study(features, checkpoint, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    'content', ['[' * 100_000, '{"steps": "10", "seeds": 8}', '\udcff']
)
def test_a_damaged_plan_is_made_anew(content, tmp_path, checkpoint):
    features = make_features(tmp_path)
    flags = '--steps 10 --variants frozen linear'
    words = ['e', 'd', '--block', checkpoint, *flags.split()]
    settings = command.settings_of(command.parse_args(words))
    plans = []
    for _ in range(2):
        with start_workers(features, 0) as run:
            plans.append(Study.prepare(features, settings, run, 0.0).plan)
        (path,) = tmp_path.glob('plan-*.json')
        path.write_bytes(content.encode(errors='surrogateescape'))
    assert plans[0] == plans[1] == Plan(steps=10, seeds=8)


def test_damaged_results_do_not_count(tmp_path):
    features = make_features(tmp_path)
    trainer = Trainer(features)
    linear = trainer.profile(HeadSpec('linear', 'linear', 'the linear probe'), steps=0)
    job = Job(linear, 1e-2, 0, 10, 'test')
    trainer.run(job)
    path = job.path(features)
    whole = json.loads(path.read_text())
    assert read_result(features, job) is not None
    texts = ['', '[' * 100_000, '[]', '5', '\udcff', path.read_text()[:40]]
    fields = dict(
        correct=['zz', '', 'ff' * 999, 1, None], seconds=['1', None, -1, math.nan]
    )
    for field, values in fields.items():
        texts += [json.dumps(whole | {field: value}) for value in values]
    for text in texts:
        path.write_bytes(text.encode(errors='surrogateescape'))
        assert read_result(features, job) is None, text[:80]


def test_the_work_folder_is_looked_at_before_anything_is_computed(
    tmp_path, checkpoint, monkeypatch
):
    def never(*args, **kwargs):
        raise AssertionError('something was computed')

    monkeypatch.setattr(command, 'load_encoder', never)
    (tmp_path / 'file').touch()
    (tmp_path / 'grid').mkdir()
    (tmp_path / 'grid/results.csv').write_text('of a grid')
    (tmp_path / 'used').mkdir()
    cache = str(tmp_path / 'cache')
    words = ['encoder', 'data', '--block', checkpoint, '--cache', cache]
    cases = {
        'file': 'cannot be written to: File exists',
        'grid': 'holds results.csv of another',
    }
    for name, match in cases.items():
        with pytest.raises(UserError, match=match):
            command.main([*words, '--work-dir', str(tmp_path / name)])
    with pytest.raises(UserError, match='--cache.* cannot be written to'):
        command.main([*words, '--cache', str(tmp_path / 'file')])
    with (
        sole_use(tmp_path / 'used/.lock'),
        pytest.raises(UserError, match='Another run works'),
    ):
        command.main([*words, '--work-dir', str(tmp_path / 'used')])
    assert (tmp_path / 'grid/results.csv').read_text() == 'of a grid'


def test_a_folder_keeps_the_report_of_its_study(tmp_path):
    study = dict(encoder='encoder', data=str(tmp_path), block='package:x')
    claim_folder(tmp_path, study)
    claim_folder(tmp_path, dict(study, encoder='misspelt'))  # which left no report
    claim_folder(tmp_path, study)
    (tmp_path / 'report.html').touch()
    claim_folder(tmp_path, dict(study, data=f'{tmp_path}/'))
    with pytest.raises(
        UserError, match='report of another study .encoder encoder, data'
    ):
        claim_folder(tmp_path, dict(study, data='others'))
    (tmp_path / OWNER).unlink()  # as before there was such a file
    (tmp_path / 'results.csv').touch()
    claim_folder(tmp_path, study)


def test_minutes_that_do_not_suffice_are_named(tmp_path, checkpoint, monkeypatch):
    args = command.parse_args(
        ['e', 'd', '--block', checkpoint, '--minutes', '0.3', '--workers', '0']
    )
    settings = command.settings_of(args)
    features = make_features(tmp_path)
    with pytest.raises(UserError, match='needs? about [1-9].*--minutes'):
        command.run_study(features, settings, time.monotonic() - 60, tmp_path)


def test_the_page_escapes_names(tmp_path, checkpoint, monkeypatch):
    study(make_features(tmp_path), checkpoint, monkeypatch=monkeypatch)
    page = (tmp_path / 'out/report.html').read_text()
    assert '&lt;encoder&gt; on data' in page
    assert '<encoder>' not in page
    assert 'src="data:image/png;base64,' in page
    assert 'http' not in page.split('<pre>')[0]


def test_controls_have_the_size_they_are_named_for():
    operations, channels, tokens, width = 9_000_000, 192, 16, 384
    for control in list_controls(channels, tokens, width, operations):
        if control.width:
            head = build_head(control, channels, 10, 0)
            if control.name.endswith('(parameters)'):
                size, _ = count_parameters(head[0])
                target = 2 * channels * width
            else:
                size = count_operations(head[0], tokens, channels, 'cpu')
                target = operations
            assert size == pytest.approx(target, rel=0.06), control.name


def test_only_pictures_to_train_have_views(tmp_path):
    features = make_features(tmp_path, views=2)
    trainer = Trainer(features)
    seen = set()
    for x, _ in itertools.islice(trainer.batches(('train', 'val'), 0), 40):
        assert x.shape == (BATCH, TOKENS, CHANNELS)
        seen |= {*(x.flatten(1).amax(1) > 100).tolist()}
    assert seen == {False, True}
    for x, _ in itertools.islice(trainer.batches(('val',), 0), 4):
        assert x.max() < 100


@pytest.mark.slow
def test_processes_train_what_one_does(tmp_path, checkpoint):
    features = make_features(tmp_path)
    head = HeadSpec('frozen', 'frozen', '', dict(checkpoint=checkpoint))
    profiled = Trainer(features).profile(head, steps=0)
    jobs = [Job(profiled, 1e-2, seed, 20, 'test') for seed in range(3)]
    found = []
    for processes in (0, 2):
        with start_workers(features, processes) as run:
            assert len([*run('run', jobs)]) == 3
        found.append([read_result(features, job).correct for job in jobs])
    assert np.array_equal(*found)
