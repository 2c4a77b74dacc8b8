"""Studies on tokens made here: what they find, and that a kill loses no digit."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import LlamaConfig, LlamaModel

from lm4ve.blocks import count_parameters
from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.runner.command_line import run_tool
from lm4ve.runner.exit_codes import STOPPED
from lm4ve.study.heads import precision, training
from lm4ve.study.heads.candidates import FAMILIES, list_controls, list_probes
from lm4ve.study.heads.head import (
    HeadSpec,
    ProfiledHead,
    build_head,
    count_operations,
)
from lm4ve.study.heads.profiling import TokenShape, profile_head
from lm4ve.study.heads.study import Study, profile_heads
from lm4ve.study.heads.training import Trainer, head_job
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.pool import Pool
from lm4ve.study.progress import Progress
from lm4ve.study.report import OWNER, claim_folder
from lm4ve.study.store import Store
from lm4ve.study.tokens.features import Features
from tests.helpers.processes import environment
from tests.helpers.tools import parse_try, run_lm4ve

command = import_module('lm4ve.commands.try')  # a statement cannot name it
TOKENS, CHANNELS = 2, 4
#: Of studies whose truth is known.
TRUTH_KNOWN = (
    '--variants linear logreg knn frozen random --seeds 4 --steps 60 '
    '--rates 1e-3 3e-3 1e-2'
)


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


def make_features(folder, labels=None, count=900) -> Features:
    """Noise as tokens; labels are noise too, or a function of the tokens ``[n, N, C]``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shape = (count, TOKENS, CHANNELS)
    tokens = np.memmap(folder / 'tokens.f16', np.float16, 'w+', shape=shape)
    tokens[:] = rng.normal(size=shape)
    if labels is None:
        own_labels = rng.integers(2, size=count)
    else:
        own_labels = labels(torch.from_numpy(np.array(tokens)).float())
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


class Extracted:
    """Stands for an encoder that has run: its tokens are there."""

    def __init__(self, features):
        self.features = features
        self.folder = features.folder
        self.data = features.data
        has_class_token = features.prefix > 0
        self.encoder = SimpleNamespace(
            prefix=features.prefix, has_class_token=has_class_token
        )

    def extract(self):
        return self.features


def shape_of(features) -> TokenShape:
    """Return what heads for these tokens are built for."""
    classes = len(features.data.classes)
    return TokenShape(TOKENS, CHANNELS, features.prefix > 0, classes)


def profile(features, words):
    """Profile the heads of the study that the words of a command line ask for."""
    settings = command.settings_of(parse_try(words))
    settings = replace(settings, dtype='float32')
    return profile_heads(settings, shape_of(features))


def study(features, checkpoint, *words, monkeypatch):
    """Run the command on features; return its sentence and results."""
    monkeypatch.setattr(command, 'load_encoder', lambda *a, **k: None)
    monkeypatch.setattr(command, 'read_data', lambda *a, **k: features.data)
    monkeypatch.setattr(
        command, 'FeatureExtraction', lambda *a, **k: Extracted(features)
    )
    out = features.folder / 'out'
    flags = (
        '--variants linear frozen random --rates 3e-3 1e-2 3e-2 --steps 20 --seeds 3 '
        '--workers 0'
    )
    common = ['encoder', 'data', '--block', checkpoint, '--work-dir', str(out)]
    run_lm4ve('try', [*common, *flags.split(), *[str(word) for word in words]])
    return (out / 'sentence.txt').read_text(), (out / 'results.csv').read_bytes()


@pytest.mark.slow
def test_labels_of_noise_show_no_difference(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path, count=4500)
    words = '--seeds', 8, '--margin', 5
    sentence, _ = study(features, checkpoint, *words, monkeypatch=monkeypatch)
    assert 'does not differ by more than 5 points from the linear probe' in sentence
    assert sentence.startswith('No: ')


def test_a_study_killed_before_its_first_result_has_planned(
    tmp_path, checkpoint, monkeypatch
):
    features = make_features(tmp_path)

    def kill(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, 'train', kill)
        with pytest.raises(KeyboardInterrupt):
            study(features, checkpoint, monkeypatch=monkeypatch)
    words = '--variants', 'linear', 'frozen', '--steps', 10
    study(features, checkpoint, *words, monkeypatch=monkeypatch)
    planned = pd.read_csv(tmp_path / 'out/comparisons.csv')
    assert planned['against'].tolist() == ['linear', 'random']
    assert planned['reason'][1] == 'no scores'


@pytest.mark.slow
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


@pytest.mark.walk
def test_shuffled_labels_of_real_pictures_show_nothing(tmp_path):
    """The whole command, with a trained encoder and a language model's layer."""
    digits = load_digits()
    labels = np.random.default_rng(0).permutation(digits.target[:900])
    lines = ['path,label,split']
    for i, (pixels, label) in enumerate(zip(digits.images, labels, strict=False)):
        picture = Image.fromarray((pixels * 15.9375).astype(np.uint8))
        picture.resize((64, 64)).convert('RGB').save(tmp_path / f'{i}.png')
        split = 'train' if i < 300 else 'test'
        lines.append(f'{i}.png,{label},{split}')
    (tmp_path / 'pictures.csv').write_text('\n'.join(lines))
    words = (
        'package:efficientnet-lite0 pictures.csv --size 64 --block '
        f'package:all-MiniLM-L6-v2 {TRUTH_KNOWN} --work-dir out --cache cache'
    )
    done = subprocess.run(
        [sys.executable, '-m', 'lm4ve', 'try', *words.split()],
        cwd=tmp_path,
        env=environment(real=True),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    sentence = (tmp_path / 'out/sentence.txt').read_text()
    assert sentence.startswith(('Open: ', 'No: '))
    verdicts = pd.read_csv(tmp_path / 'out/comparisons.csv')['verdict']
    assert len(verdicts) == 4
    assert {*verdicts} <= {'open', 'equal'}


@pytest.mark.walk
def test_labels_that_a_language_model_layer_gives_show_a_gain(tmp_path, monkeypatch):
    """A head with random mappers gives them, so that the same head can learn them."""
    model = 'package:all-MiniLM-L6-v2'
    head = HeadSpec('frozen', 'frozen', '', dict(checkpoint=model))
    teacher = build_head(head, CHANNELS, 1, seed=1000).requires_grad_(False)

    def label(tokens):
        score = teacher(tokens)[:, 0]
        return score > score.median()

    features = make_features(tmp_path, label, count=6000)
    # In fewer steps the head has not learned what the teacher tells.
    words = [*TRUTH_KNOWN.split(), '--steps', 240, '--workers', 2]
    sentence, _ = study(features, model, *words, monkeypatch=monkeypatch)
    assert sentence.startswith('Yes: ')
    assert 'its pre-training helps' in sentence


def test_a_channel_silent_in_training_does_not_drown_the_others(tmp_path):
    features = make_features(tmp_path)
    tokens = np.memmap(tmp_path / 'tokens.f16', np.float16, 'r+', shape=features.shape)
    tokens[..., 0] = 0
    tokens[features.data.splits['test'], :, 0] = 1.0
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
    run = training.run

    def stopped(spec, *args):
        if len(calls) == 20:
            raise KeyboardInterrupt
        calls.append(spec)
        return run(spec, *args)

    monkeypatch.setattr(training, 'run', stopped)
    with pytest.raises(KeyboardInterrupt):
        study(features, checkpoint, monkeypatch=monkeypatch)
    done = sorted((tmp_path / 'torn/jobs').glob('*/result.json'))
    assert len(done) == 20
    done[3].write_text(done[3].read_text()[:40])
    times = {path: path.stat().st_mtime_ns for path in done}
    calls.clear()

    def counted(spec, *args):
        calls.append(spec)
        return run(spec, *args)

    monkeypatch.setattr(training, 'run', counted)
    assert study(features, checkpoint, monkeypatch=monkeypatch) == whole
    changed = [path for path in done if path.stat().st_mtime_ns != times[path]]
    assert changed == [done[3]]
    # More seeds train only what is new.
    calls.clear()
    study(features, checkpoint, '--seeds', 4, monkeypatch=monkeypatch)
    assert {spec['seed'] for spec in calls} == {3}


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_study_says_how_to_go_on(
    number, tmp_path, checkpoint, monkeypatch, capsys
):
    features = make_features(tmp_path)
    stop = lambda *args: os.kill(os.getpid(), number)  # noqa: E731
    monkeypatch.setattr(training, 'run', stop)
    words = ('--cache', tmp_path / 'cache')
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: study(features, checkpoint, *words, monkeypatch=monkeypatch))
    assert end.value.code == STOPPED
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line == (
        f'Stopped by {number.name}. The same command goes on from what is stored in '
        f"'{tmp_path}/cache'."
    )


@pytest.mark.parametrize('command', ['try', 'ablate'])
def test_a_job_that_no_study_has_is_refused(command, tmp_path, monkeypatch, capsys):
    words = {
        'try': ['e', 'd', '--block', 'x', '--cache', str(tmp_path)],
        'ablate': ['grid.py', '--work-dir', str(tmp_path)],
    }
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: run_lm4ve(command, [*words[command], '--only', 'f00d']))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "error: --only: there is no job 'f00d' here."
    assert list(tmp_path.iterdir()) == []


def test_another_layer_reuses_what_is_trained(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path)
    study(features, checkpoint, '--layers', 1, monkeypatch=monkeypatch)
    before = {*(tmp_path / 'jobs').glob('*/spec.json')}
    study(features, checkpoint, '--layers', 0, monkeypatch=monkeypatch)
    new = {*(tmp_path / 'jobs').glob('*/spec.json')} - before
    # A random layer is the same in every place.
    heads = {json.loads(path.read_text())['variant'] for path in new}
    assert heads == {'frozen'}


def test_a_block_of_several_layers_and_some_heads_is_compared(tmp_path, checkpoint):
    features = make_features(tmp_path)
    words = ['e', 'd', '--block', checkpoint, '--variants', 'frozen', 'random']
    (one, _) = profile(features, [*words, '--layers', '1']).values()
    flags = ['--layers', '0-1', '--heads', '1']
    (both, random) = profile(features, [*words, *flags]).values()
    assert both.operations > one.operations
    assert both.block['layers'] == random.block['layers'] == (0, 1)
    assert both.block['heads'] == random.block['heads'] == (1,)
    assert len({head.identity for head in (one, both, random)}) == 3


@pytest.mark.parametrize('word', ['3-', '5-3', 'last', '1.0', '0-1-2'])
def test_what_is_no_layer_is_refused(word, checkpoint, capsys):
    with pytest.raises(SystemExit):
        parse_try(['e', 'd', '--block', checkpoint, '--layers', word])
    assert f"'{word}' is no layer" in capsys.readouterr().err


def test_two_runs_at_once_are_one_too_many(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path)
    lock = tmp_path / 'jobs/lock'
    lock.parent.mkdir()
    with (
        sole_use(lock),
        pytest.raises(UserError, match='Another run'),
    ):
        study(features, checkpoint, monkeypatch=monkeypatch)


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
            run_lm4ve('try', [*words, '--work-dir', str(tmp_path / name)])
    with pytest.raises(UserError, match='--cache.* cannot be written to'):
        run_lm4ve('try', [*words, '--cache', str(tmp_path / 'file')])
    with (
        sole_use(tmp_path / 'used/.lock'),
        pytest.raises(UserError, match='Another run works'),
    ):
        run_lm4ve('try', [*words, '--work-dir', str(tmp_path / 'used')])
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


@pytest.mark.parametrize(
    'flags',
    [
        ['--encoder-checkpoint', 'a.pth'],
        ['--size', '96'],
        ['--limit', '500'],
        ['--formal', 'work_dirs/dyck'],
    ],
)
def test_another_study_has_another_report(flags):
    words = ['e', 'd', '--block', 'x']
    plain = parse_try(words)
    other = parse_try([*words, *flags])
    assert command.default_name(plain) != command.default_name(other)
    assert command.identity_of(plain) != command.identity_of(other)


def test_the_flag_takes_every_family():
    """The flags are apart from what imports torch."""
    (action,) = [
        action
        for action in parser_of('try')._actions
        if '--variants' in action.option_strings
    ]
    assert sorted(action.choices) == sorted(FAMILIES)


def test_a_rate_that_is_named_twice_counts_once():
    words = 'e d --block x --rates 1e-3 1e-3 1e-2 1e-1'.split()
    settings = command.settings_of(parse_try(words))
    assert settings.rates == [1e-3, 1e-2, 1e-1]


def test_a_formal_block_that_no_variant_compares_is_refused():
    words = 'e d --block x --formal dyck --variants linear frozen'.split()
    with pytest.raises(UserError, match='--formal names a block'):
        parse_try(words)


def test_the_page_escapes_names(tmp_path, checkpoint, monkeypatch):
    study(make_features(tmp_path), checkpoint, monkeypatch=monkeypatch)
    page = (tmp_path / 'out/report.html').read_text()
    assert '&lt;encoder&gt; on data' in page
    assert '<encoder>' not in page
    assert 'src="data:image/png;base64,' in page
    assert 'http' not in page.split('<pre>')[0]


def test_controls_have_the_size_they_are_named_for():
    operations, channels, tokens, width = 9_000_000, 192, 16, 384
    block = ProfiledHead('x', 'frozen', '', embed_dims=width, operations=operations)
    controls = list_controls(block, channels, tokens)
    assert len(controls) == 4
    for control in controls:
        head = build_head(control, channels, 10, 0)
        if control.name.endswith('(parameters)'):
            size, _ = count_parameters(head[0])
            target = 2 * channels * width
        else:
            size = count_operations(head[0], tokens, channels, 'cpu')
            target = operations
        assert size == pytest.approx(target, rel=0.06), control.name


@pytest.mark.slow
def test_processes_train_what_one_does(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path)
    features.save()
    spec = HeadSpec('frozen', 'frozen', '', dict(checkpoint=checkpoint))
    head = profile_head(spec, shape_of(features))
    jobs = [head_job(features, head, 1e-2, seed, 'test', 20) for seed in range(3)]
    found = []
    for name, workers in (('here', 0), ('forks', 2), ('commands', 1)):
        pool = Pool(Store(tmp_path / name), workers)
        is_command = name == 'commands'  # as with a GPU
        monkeypatch.setattr(Pool, '_needs_commands', is_command)
        progress = Progress({head.name: 1.0}, {head.name: 3}, workers)
        assert pool.run(jobs, progress) == []
        found.append([pool.store.result(job).predicted for job in jobs])
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_job_runs_from_its_specification_alone(tmp_path, checkpoint):
    """As a task of a cluster does, or ``--only``."""
    features = make_features(tmp_path)
    features.save()
    (linear,) = list_probes(has_class_token=False)[:1]
    job = head_job(
        features, profile_head(linear, shape_of(features)), 1e-2, 0, 'test', 10
    )
    store = Store(tmp_path / 'jobs')
    store.prepare(job)
    words = ['e', 'd', '--block', checkpoint, '--cache', str(tmp_path.parent)]
    run_lm4ve('try', [*words, '--only', job.key])
    result = store.result(job)
    labels = features.data.labels[features.data.splits['test']]
    assert result.metrics['accuracy'] == 100 * np.mean(result.predicted == labels)


# ------------------------------------------------------------ precision, shots, blocks
def test_the_type_of_products_is_chosen_once(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, 'computes_bfloat16', lambda device: True)
    assert precision.choose_dtype('auto', tmp_path) == 'bfloat16'
    # On another machine, with the same tokens.
    monkeypatch.setattr(precision, 'computes_bfloat16', lambda device: False)
    assert precision.choose_dtype('auto', tmp_path) == 'bfloat16'
    with pytest.raises(UserError, match='--dtype float32: .* chose bfloat16'):
        precision.choose_dtype('float32', tmp_path)
    (tmp_path / precision.RECORD).write_text('{"dtype": "int4"}')
    assert precision.choose_dtype('auto', tmp_path) == 'float32'


def test_types_of_products_share_no_result(tmp_path):
    features = make_features(tmp_path)
    head = profile_head(list_probes(has_class_token=False)[0], shape_of(features))
    jobs = [
        head_job(features, head, 1e-2, 0, 'test', 10, dtype)
        for dtype in precision.DTYPES
    ]
    assert len({job.key for job in jobs}) == 2


def test_a_head_gives_the_same_in_both_types_up_to_rounding(tmp_path, checkpoint):
    features = make_features(tmp_path, lambda x: x[:, 0, 0] > 0)
    trainer = Trainer(features)
    head = HeadSpec('frozen', 'frozen', '', dict(checkpoint=checkpoint))
    pictures = features.data.splits['train']
    test = features.data.splits['test']
    predicted = []
    for dtype in precision.DTYPES:
        block = dict(checkpoint=checkpoint, dtype=dtype)
        own = replace(head, block=block)
        model = trainer.train(own, 1e-2, 0, 60, pictures, dtype)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        predicted.append(trainer.predict(model, test, 'tokens', dtype))
    assert np.mean(predicted[0] == predicted[1]) > 0.9


def test_shots_are_so_many_of_each_class_and_drawn_by_the_seed(tmp_path):
    features = make_features(tmp_path)
    trainer = Trainer(features)
    labels = features.data.labels
    train = features.data.splits['train']
    drawn = [trainer.pictures(train, 5, seed) for seed in (0, 0, 1)]
    for pictures in drawn:
        assert np.bincount(labels[pictures]).tolist() == [5, 5]
        assert set(pictures) <= set(features.data.splits['train'])
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert np.array_equal(trainer.split('test', 0, shots=5)[0], train)
    everything = trainer.pictures(train, 10_000, 0)
    assert sorted(everything) == sorted(features.data.splits['train'])


def test_few_shots_are_drawn_anew_with_each_seed(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path, lambda x: x[:, 0, 0] > 0)
    means = []
    for shots, seeds in (('2', 2), ('all', 1)):
        words = f'--variants linear knn logreg frozen --shots {shots} --seeds 2'.split()
        _, results = study(features, checkpoint, *words, monkeypatch=monkeypatch)
        table = pd.read_csv(io.BytesIO(results))
        counts = table.groupby('variant')['seed'].count()
        # Nearest neighbours of all pictures are the same with every seed; of logistic
        # regression seeds may take another C.
        assert counts['knn'] == seeds
        means.append(table.groupby('variant')['accuracy'].mean()['linear'])
    assert means[0] < means[1]


def test_of_several_linear_probes_the_best_on_val_is_compared(
    tmp_path, checkpoint, monkeypatch
):
    # Everything is in the second token, which is that of a place.
    features = make_features(tmp_path, lambda x: x[:, 1, 0] > 0)
    features = replace(features, prefix=1)
    words = '--variants linear frozen --seeds 2'.split()
    study(features, checkpoint, *words, monkeypatch=monkeypatch)
    pairs = pd.read_csv(tmp_path / 'out/comparisons.csv')
    (against,) = pairs['against']
    assert against in ('linear (mean)', 'linear (both)')
    results = pd.read_csv(tmp_path / 'out/results.csv')
    means = results.groupby('variant')['accuracy'].mean()
    assert means['linear (class)'] < means['linear (mean)'] - 3


def test_more_shots_than_a_class_has_are_refused(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path, count=120)
    with pytest.raises(UserError, match='has [0-9]+ pictures to train on.*=100'):
        study(features, checkpoint, '--shots', 100, monkeypatch=monkeypatch)


def test_an_unknown_block_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError('something was read')

    monkeypatch.setattr(command, 'load_encoder', never)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='no-such-model'):
        run_lm4ve(
            'try', ['encoder', 'data', '--block', str(tmp_path / 'no-such-model')]
        )


def test_each_seed_draws_pictures_of_its_own_and_keeps_groups_whole(tmp_path):
    features = make_features(tmp_path)
    groups = np.arange(900) // 3
    features = replace(features, data=replace(features.data, groups=groups))
    trainer = Trainer(features)
    tuned = {*features.data.splits['train'], *features.data.splits['val']}
    drawn = []
    for seed in (0, 0, 1):
        fit, val = trainer.split('draw', seed, shots=0)
        assert {*fit, *val} == tuned
        assert not {*groups[fit]} & {*groups[val]}
        drawn.append({*val.tolist()})
    assert drawn[0] == drawn[1] != drawn[2]


def test_damage_that_only_the_encoder_finds_is_listed(
    tmp_path, checkpoint, monkeypatch
):
    features = make_features(tmp_path, count=90)
    data = replace(features.data, left_out=(('a.jpg', 'cannot be decoded'),))
    found = replace(features, data=data)
    monkeypatch.setattr(Extracted, 'extract', lambda self: found)
    words = '--seeds', 2, '--steps', 10
    study(features, checkpoint, *words, monkeypatch=monkeypatch)
    lines = (tmp_path / 'out/left_out.csv').read_text().splitlines()
    assert lines == ['path,reason', 'a.jpg,cannot be decoded']
    assert '1 file(s) are not used' in (tmp_path / 'out/report.html').read_text()


def test_files_of_two_runs_are_no_study(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path, count=90)

    def run(seeds):
        words = '--seeds', seeds, '--steps', 10
        return study(features, checkpoint, *words, monkeypatch=monkeypatch)[0]

    def fail(source, target):
        if Path(target).name == 'tuning.csv':
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    move = os.replace
    first, *_ = run(2).splitlines()
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', fail)
        with pytest.raises(UserError, match="tuning.csv' was not written"):
            run(3)
    words = ['encoder', 'data', '--block', checkpoint, '--work-dir']
    with pytest.raises(UserError, match='has no study'):
        run_lm4ve('try', [*words, str(tmp_path / 'out'), '--report-only'])
    assert run(3).splitlines()[-1].endswith(f'of 2 seeds, said: {first}')


def test_the_report_follows_from_its_own_files(tmp_path, checkpoint, monkeypatch):
    features = make_features(tmp_path / 'features', lambda x: x[:, 0, 0] > 0)
    study(features, checkpoint, '--seeds', 2, monkeypatch=monkeypatch)
    out = (tmp_path / 'features/out').rename(tmp_path / 'copied')
    shutil.rmtree(tmp_path / 'features')
    stored = {'study.json', 'pictures.csv', 'rule.txt'}
    stored |= {'results.csv', 'tuning.csv', 'timings.csv'}
    written = {}
    for path in out.iterdir():
        written[path.name] = path.read_bytes()
        if path.name not in stored:
            path.unlink()
    words = ['encoder', 'data', '--block', checkpoint, '--work-dir', str(out)]
    run_lm4ve('try', [*words, '--report-only'])
    for name in written.keys() - {'.study.json', '.lock', 'plan.json'}:
        assert (out / name).read_bytes() == written[name], name
