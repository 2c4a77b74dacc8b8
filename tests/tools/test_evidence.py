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
    names = [line.split()[2] for line in lines]
    assert len(set(names)) == len(names) == 14
    assert all('package:' in line or 'g.gguf' in line for line in lines)


def test_probes_are_ranked_by_layers(tmp_path):
    rng, layers = np.random.default_rng(0), np.arange(6)
    noise = rng.permutation(6)
    rows = [
        dict(layer=int(i), coherence=float(noise[i]), similarity=i / 9) for i in layers
    ]
    (tmp_path / 'minilm.json').write_text(json.dumps(rows))
    expected = []
    for study, scores in dict(
        a=layers, b=layers + np.array([0, 1.5, 0, 0, 0, 0])
    ).items():
        folder = tmp_path / f'layers_minilm_{study}'
        folder.mkdir()
        names = [f'frozen (layer {i})' for i in layers]
        table = pd.DataFrame(
            dict(variant=names * 2, seed=0, accuracy=[*scores, *scores])
        )
        table.to_csv(folder / 'results.csv', index=False)
        expected.append([spearmanr(m, scores).statistic for m in (noise, layers)])
    result = TOOL['test_probes']([tmp_path / 'minilm.json'], tmp_path)
    assert result['correlation'].tolist() == pytest.approx(np.mean(expected, axis=0))
    # Of 720 orders of the layers, one or two agree as well.
    assert result['p'][1] < 0.005 < result['p'][0]
    assert result['studies'].tolist() == [2, 2]
