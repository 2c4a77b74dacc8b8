"""The stored digits and their splits are scikit-learn's."""

import numpy as np
import pytest

from lm4ve.tasks.base.digit_scans import DIGITS, digit_scans


def test_stored_splits_are_those_of_scikit_learn():
    datasets = pytest.importorskip('sklearn.datasets')
    from sklearn.model_selection import train_test_split

    digits, stored = datasets.load_digits(), np.load(DIGITS)
    assert (stored['images'] == digits.images).all() and (stored['labels'] == digits.target).all()
    names = ('train', 'test', 0.3), ('fit', 'val', 0.2)
    names += ('scans_train', 'scans_rest', 0.4), ('scans_val', 'scans_test', 0.5)
    everything = np.arange(len(digits.target))
    parts = dict(fit=everything)
    for first, second, share in names:
        whole = {'fit': 'train', 'scans_val': 'scans_rest'}.get(first)
        whole = everything if whole is None else parts[whole]
        parts[first], parts[second] = train_test_split(
            whole, test_size=share, random_state=0, stratify=digits.target[whole]
        )
    del parts['scans_rest']
    assert {*parts, 'images', 'labels'} == {*stored.files}
    assert all((stored[name] == part).all() for name, part in parts.items())
    images, labels = digit_scans()['val']
    assert images.dtype == float and (labels == digits.target[parts['scans_val']]).all()
