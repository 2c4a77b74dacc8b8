"""The stored digits and their splits are scikit-learn's."""

import numpy as np
import pytest

from lm4ve.tasks.base.digit_scans import DIGITS, digit_scans

#: What is cut, into which splits, and the share of the second one.
CUTS = [('all', 'train', 'test', 0.3), ('train', 'fit', 'val', 0.2)]
CUTS += [('all', 'scans_train', 'rest', 0.4), ('rest', 'scans_val', 'scans_test', 0.5)]


def test_stored_splits_are_those_of_scikit_learn():
    datasets = pytest.importorskip('sklearn.datasets')
    cut = pytest.importorskip('sklearn.model_selection').train_test_split
    digits, stored = datasets.load_digits(), np.load(DIGITS)
    labels, parts = digits.target, dict(all=np.arange(len(digits.target)))
    for whole, first, second, share in CUTS:
        options = dict(test_size=share, random_state=0, stratify=labels[parts[whole]])
        parts[first], parts[second] = cut(parts[whole], **options)
    parts |= dict(images=digits.images, labels=labels)
    assert parts.keys() - {'all', 'rest'} == {*stored.files}
    assert all((stored[name] == parts[name]).all() for name in stored.files)
    assert (digit_scans()['val'][1] == labels[parts['scans_val']]).all()
