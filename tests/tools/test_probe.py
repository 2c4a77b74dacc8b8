"""Similarity and coherence against plain computations, and the command on a demo."""

import json

import pytest
import torch
import torch.nn.functional as F

from lm4ve.errors import UserError
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import load_tool, run_tool_here

DEMOS = CONFIGS / 'lm4ve'
TOOL = load_tool('analysis/probe.py')


def test_linear_cka_equals_that_of_gram_matrices():
    x = torch.randn(20, 5)
    y = torch.randn(20, 7)
    y[:, :3] += x[:, :3]
    center = torch.eye(20) - 1 / 20
    gram_x = center @ (x @ x.T) @ center
    gram_y = center @ (y @ y.T) @ center
    expected = (gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm())
    assert TOOL['linear_cka'](x, y) == pytest.approx(expected.item(), rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(5, 5))[0]
    assert TOOL['linear_cka'](x, 3 * x @ rotation + 1) == pytest.approx(1)
    with pytest.raises(UserError, match='must be above 0'):
        TOOL['linear_cka'](x, torch.ones(20, 2))


def test_coherence_is_the_mean_cosine_of_pairs():
    gradients = torch.randn(6, 9)
    cosines = F.cosine_similarity(gradients[:, None], gradients[None], dim=-1)
    expected = (cosines.sum() - 6) / 30
    assert TOOL['mean_cosine'](list(gradients)) == pytest.approx(
        expected.item(), abs=1e-6
    )


def probe(config: str, *words) -> None:
    run_tool_here('analysis/probe.py', DEMOS / f'vit-demo_{config}_digits.py', *words)


def test_layers_are_probed_and_compared_with_scores(tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    scores = tmp_path / 'results.csv'
    scores.write_text(
        'variant,accuracy/top1\nlayer 4,4\nlayer 4,5\nlayer 5,5\nlayer 5,6\n'
    )
    out = tmp_path / 'probe.json'
    few = ['--samples', 3, '--steps', 2, '--out', out]
    base = DEMOS / 'vit-demo_none_digits.py'
    words = f'--base {base} --layers 4 5 --scores {scores} --seeds 3 8'
    probe('minilm', *words.split(), *few)
    probes = json.loads(out.read_text())
    order = [(3, None), (3, 4), (3, 5), (8, None), (8, 4), (8, 5)]
    assert [(p['seed'], p['layer']) for p in probes] == order
    for found in probes:
        assert -0.5 <= found['coherence'] <= 1
        if found['layer'] is not None:
            assert 0 < found['similarity'] <= 1
    assert len({p['coherence'] for p in probes}) == 6
    assert "Spearman's correlation" in capsys.readouterr().out
    # A seed's probe does not depend on those before it.
    probe('minilm', '--layers', 5, *few, '--seeds', 8)
    assert json.loads(out.read_text()) == probes[5:]
