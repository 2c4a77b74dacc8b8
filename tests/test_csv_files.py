"""A spreadsheet that opens a CSV file of ours runs none of its cells as a formula."""

import ast
import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import lm4ve
from lm4ve import files
from lm4ve.runner.prediction_table import PredictionTable

PACKAGE = Path(lm4ve.__file__).parent
TOOLS = PACKAGE.parents[1] / 'tools'
#: Classes and functions of Python's library that write CSV.
CSV_WRITERS = {'csv.writer', 'csv.DictWriter'}
#: What begins a formula in spreadsheets, by OWASP's page "CSV Injection".
STARTS = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']


def read_cells(path):
    """Return the cells of a file as a spreadsheet reads them, a list for each row."""
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.reader(file))


@pytest.mark.parametrize('start', STARTS)
def test_text_that_begins_a_formula_gets_an_apostrophe(tmp_path, start):
    hostile = f'{start}cmd|"/c calc"!A0'
    files.write_csv([hostile, 'safe'], [[hostile, Path('a=b')]], tmp_path / 't.csv')
    expected = f"'{hostile}"
    assert read_cells(tmp_path / 't.csv') == [[expected, 'safe'], [expected, 'a=b']]


@pytest.mark.parametrize('end', ['\r', '\n', '\r\n', ',', ';', '"'])
def test_a_formula_inside_a_text_begins_no_cell(tmp_path, end):
    text = f'a{end}=cmd'
    files.write_csv(['text', 'next'], [[text, 1]], tmp_path / 't.csv')
    assert read_cells(tmp_path / 't.csv')[1:] == [[text, '1']]
    # Programs end a row at each of these, unless the cell is in quotes.
    if end != ';':
        doubled = text.replace('"', '""')
        assert f'"{doubled}"'.encode() in (tmp_path / 't.csv').read_bytes()


def test_numbers_stay_numbers(tmp_path):
    row = [-1, -0.1, np.float64(-1e-7), np.int64(-3), True, None, math.nan, -math.inf]
    files.write_csv('abcdefgh', [row], tmp_path / 't.csv')
    assert read_cells(tmp_path / 't.csv')[1] == [
        *('-1', '-0.1', '-1e-07', '-3', 'True', '', '', '-inf')
    ]
    files.write_csv('ab', [['-1', '-0.5e3']], tmp_path / 't.csv')
    assert read_cells(tmp_path / 't.csv')[1] == ['-1', '-0.5e3']
    files.write_csv('ab', [[-1, -0.1]], tmp_path / 't.csv', digits=3)
    assert read_cells(tmp_path / 't.csv')[1] == ['-1', '-0.100']


def test_file_and_class_names_in_predictions_are_no_formulas(tmp_path):
    table = PredictionTable(tmp_path / 'predictions.csv')
    table.dataset_meta = dict(classes=['@SUM(A1)', '-cat'])
    label = torch.tensor([0])
    scores = torch.tensor([-2.0, -0.5])
    sample = dict(
        img_path='=cmd.png', gt_label=label, pred_label=label, pred_score=scores
    )
    table.process(None, [sample])
    table.evaluate(1)
    assert read_cells(tmp_path / 'predictions.csv')[1] == [
        *("'=cmd.png", "'@SUM(A1)", "'-cat", '-0.500000')
    ]


def test_nothing_else_writes_csv():
    """One function writes all CSV files of the packages and of the tools."""
    others = []
    for path in [*PACKAGE.parent.rglob('*.py'), *TOOLS.rglob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Attribute):
                called = ast.unparse(node)
                if called.endswith('.to_csv') or called in CSV_WRITERS:
                    others.append(f'{path.name} uses {called}')
            elif isinstance(node, ast.ImportFrom) and node.module == 'csv':
                others.append(f'{path.name} imports from csv')
    assert not others
