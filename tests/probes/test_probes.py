"""Similarity and coherence against plain computations, and the command on a demo."""

import json

import pytest
import torch
import torch.nn.functional as F

from lm4ve.errors import UserError
from lm4ve.probes.measures import Coherence, linear_cka
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here

CONFIGS = ROOT / 'configs/lm4ve'


def test_linear_cka_equals_that_of_gram_matrices():
    torch.manual_seed(0)
    x, y = torch.randn(20, 5), torch.randn(20, 7)
    y[:, :3] += x[:, :3]
    center = torch.eye(20) - 1 / 20
    a, b = (center @ (t @ t.T) @ center for t in (x, y))
    expected = (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
    assert linear_cka(x, y) == pytest.approx(expected.item(), rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(5, 5))[0]
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    with pytest.raises(UserError, match='20 and 19 rows'):
        linear_cka(x, y[:-1])
    with pytest.raises(UserError, match='same for all tokens, or not finite'):
        linear_cka(x, torch.ones(20, 2))


def test_coherence_is_the_mean_cosine_of_pairs():
    torch.manual_seed(0)
    gradients = torch.randn(6, 9)
    coherence = Coherence()
    for g in gradients:
        coherence.add(g)
    cosines = F.cosine_similarity(gradients[:, None], gradients[None], dim=-1)
    expected = (cosines.sum() - 6) / 30
    assert coherence.value() == pytest.approx(expected.item(), abs=1e-6)
    with pytest.raises(UserError, match='--samples 2'):
        Coherence().value()


def probe(*words):
    run_tool_here('analysis/probe.py', *words)


def test_the_command_probes_layers_and_compares_with_scores(tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    config, base = (CONFIGS / f'vit-demo_{name}_digits.py' for name in ('minilm', 'none'))
    scores = tmp_path / 'results.csv'
    rows = [f'layer {i},{s}' for i in (4, 5) for s in (i, i + 1)]
    scores.write_text('\n'.join(['variant,accuracy/top1', *rows]) + '\n')
    out = tmp_path / 'probe.json'
    small = '--samples', 3, '--steps', 2, '--scores', scores, '--out', out
    probe(config, '--base', base, '--layers', 4, 5, *small)
    none, *layers = json.loads(out.read_text())
    assert (none['layer'], none['similarity']) == (None, None)
    assert [row['layer'] for row in layers] == [4, 5]
    assert all(0 < row['similarity'] <= 1 and -0.5 <= row['coherence'] <= 1 for row in layers)
    assert layers[0] != layers[1]
    assert "Spearman's correlation" in capsys.readouterr().out


def test_every_seed_is_a_probe_of_its_own(tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    out = tmp_path / 'probe.json'
    rows = {}
    for seeds in (3, 8), (8,):
        small = '--layers', 5, '--samples', 2, '--steps', 2, '--out', out
        probe(CONFIGS / 'vit-demo_minilm_digits.py', *small, '--seeds', *seeds)
        rows[seeds] = json.loads(out.read_text())
        shown = capsys.readouterr().out
        assert (' to ' in shown) == (len(seeds) > 1)
    assert [row['seed'] for row in rows[3, 8]] == [3, 8]
    assert rows[3, 8][0]['coherence'] != rows[3, 8][1]['coherence']
    assert rows[3, 8][1:] == rows[8,]


def test_what_cannot_be_probed_is_one_message(tmp_path):
    pytest.importorskip('mmpretrain')
    minilm, none = (CONFIGS / f'vit-demo_{name}_digits.py' for name in ('minilm', 'none'))
    with pytest.raises(UserError, match='no model.neck with an LLMBlock'):
        probe(none, '--layers', 5, '--samples', 2)
    with pytest.raises(UserError, match="encoder's gradient is zero.*--steps 50"):
        probe(minilm, '--layers', 5, '--samples', 2, '--steps', 0)
    with pytest.raises(UserError, match='--samples must be at least 2'):
        probe(minilm, '--layers', 5, '--samples', 1)
    for seeds in (1, 1), (-1,), (2**32,):
        with pytest.raises(UserError, match='must be different numbers from 0 to'):
            probe(minilm, '--layers', 5, '--seeds', *seeds)
    bad = tmp_path / 'scores.csv'
    bad.write_text('a,b\n1,2\n')
    with pytest.raises(UserError, match="must have a column 'variant'"):
        probe(minilm, '--layers', 5, '--scores', bad)
