"""Probes and fitted baselines: what they read, against computations written by hand."""

import numpy as np
import pytest
import torch

from lm4ve.study.heads.baselines import TEMPERATURE, fit_baseline
from lm4ve.study.heads.candidates import list_probes
from lm4ve.study.heads.study import mean_recall
from lm4ve.study.tokens.pooling import read_tokens, width_of


def points(count, seed=0):
    """Return two clouds of points, and which of them each is of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    x = rng.normal(size=(count, 6)) + 0.7 * labels[:, None]
    return x.astype(np.float32), labels


@pytest.mark.parametrize('reads', ['tokens', 'class', 'mean', 'both'])
@pytest.mark.parametrize('prefix', [1, 5])
def test_probes_read_class_token_and_mean_of_places(reads, prefix):
    x = torch.randn(3, prefix + 4, 8)
    mean = x[:, prefix:].sum(1) / 4
    expected = {
        'tokens': x,
        'class': x[:, 0][:, None],
        'mean': mean[:, None],
        'both': torch.cat((x[:, 0], mean), 1)[:, None],
    }[reads]
    found = read_tokens(x, reads, prefix)
    torch.testing.assert_close(found, expected)
    assert found.shape[2] == width_of(reads, 8)


def test_an_encoder_without_a_class_token_has_one_linear_probe():
    names = [head.name for head in list_probes(has_class_token=False)]
    assert names == ['linear', 'attentive', 'logreg', 'knn']
    reads = {head.reads for head in list_probes(has_class_token=False)}
    assert reads == {'mean', 'tokens'}
    probes = list_probes(has_class_token=True)
    with_class = [head.name for head in probes if head.family == 'linear']
    assert with_class == ['linear (class)', 'linear (mean)', 'linear (both)']


def test_neighbours_vote_by_the_exponent_of_their_similarity():
    x, labels = points(80)
    queries, _ = points(40, seed=1)
    found = fit_baseline('knn', 7, x, labels).predict(queries)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for query, label in zip(queries.astype(float), found, strict=True):
        similarity = unit @ (query / np.linalg.norm(query))
        nearest = np.argsort(-similarity)[:7]
        votes = np.exp(similarity[nearest] / TEMPERATURE)
        score = votes[labels[nearest] == 1].sum() - votes[labels[nearest] == 0].sum()
        assert (score > 0) == (label == 1)


def test_fewer_pictures_than_neighbours_all_vote():
    x, labels = points(5)
    assert fit_baseline('knn', 20, x, labels).n_neighbors == 5


def test_logistic_regression_is_at_the_minimum_of_its_loss():
    x, labels = points(60)
    c = 0.1
    model = fit_baseline('logreg', c, x.astype(float), labels)
    weight = torch.tensor(model.coef_[0], requires_grad=True)
    bias = torch.tensor(model.intercept_[0], requires_grad=True)
    scores = torch.tensor(x.astype(float)) @ weight + bias
    targets = torch.tensor(labels, dtype=torch.float64)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        scores, targets, reduction='sum'
    )
    (c * loss + weight.square().sum() / 2).backward()
    # scikit-learn stops at gradients of 1e-4.
    assert weight.grad.abs().max() < 1e-3
    assert bias.grad.abs() < 1e-3


def test_the_mean_recall_weighs_classes_alike():
    labels = np.array([0] * 8 + [1] * 2)
    correct = np.array(
        [[True] * 8 + [False] * 2, [True] * 4 + [False] * 4 + [True] * 2]
    )
    assert mean_recall(correct, labels).tolist() == [50.0, 75.0]
