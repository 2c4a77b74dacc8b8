"""mypy checks every room: what reads a missing attribute or passes a wrong argument is found."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEVER_OFF = {'attr-defined', 'call-arg', 'name-defined'}


def test_no_room_is_left_out_and_no_code_that_finds_defects_is_off():
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['mypy']
    assert settings['files'] == ['projects/lm4ve', 'projects/llm4seg']
    assert settings['check_untyped_defs']
    assert settings['exclude'] == ['/configs/']
    sections = [settings, *settings.get('overrides', [])]
    for section in sections:
        assert not section.get('ignore_errors'), section
        disabled = section.get('disable_error_code', [])
        assert NEVER_OFF.isdisjoint(disabled), section


def test_every_exception_names_its_code():
    without_code = re.compile(r'# type: ignore(?!\[[a-z-]+\])|# mypy: ')
    for path in (ROOT / 'projects').rglob('*.py'):
        assert not without_code.search(path.read_text(encoding='utf-8')), path
