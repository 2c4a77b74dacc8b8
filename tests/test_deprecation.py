"""Old names work and say once which name to use."""

import argparse
import warnings

import pytest

from lm4ve.deprecation import IgnoredOption, RenamedOption, renamed_argument
from lm4ve.errors import UserError


@renamed_argument('on_bad', 'on_corrupt', {'drop': 'skip'})
def read(path, on_corrupt='skip'):
    return path, on_corrupt


@pytest.mark.parametrize('old, new', [('drop', 'skip'), ('refuse', 'refuse')])
def test_an_old_argument_is_passed_on_with_one_warning(old, new):
    with pytest.warns(DeprecationWarning) as caught:
        assert read('p', on_bad=old) == ('p', new)
    (warning,) = caught
    assert f"on_corrupt='{new}'" in str(warning.message)
    assert warning.filename == __file__


def test_new_names_do_not_warn_and_both_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read('p', on_corrupt='refuse') == ('p', 'refuse')
    with pytest.raises(UserError, match='both are given'):
        read('p', on_corrupt='skip', on_bad='skip')


def test_an_old_option_of_a_command_line_warns():
    parser = argparse.ArgumentParser()
    parser.add_argument('--on-corrupt', '--on-bad', action=RenamedOption)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert parser.parse_args(['--on-corrupt', 'x']).on_corrupt == 'x'
    with pytest.warns(DeprecationWarning, match='--on-bad is deprecated. Use --on-c'):
        assert parser.parse_args(['--on-bad', 'x']).on_corrupt == 'x'


def test_an_option_without_effect_says_so():
    parser = argparse.ArgumentParser()
    parser.add_argument('--backend', action=IgnoredOption, const='All draw the same.')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        parser.parse_args([])
    with pytest.warns(DeprecationWarning, match='--backend .* no effect. All draw the same'):
        parser.parse_args(['--backend', 'open3d'])
