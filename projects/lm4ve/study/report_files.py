"""The files of a report, of studies of both kinds: those it is made from, and the rest."""

STUDY = 'study.json'
PICTURES = 'pictures.csv'
RESULTS = 'results.csv'
TUNING = 'tuning.csv'
TIMINGS = 'timings.csv'
SENTENCE = 'sentence.txt'
PAGE = 'report.html'
#: What a report consists of.
FILES = (
    PAGE,
    STUDY,
    PICTURES,
    RESULTS,
    TUNING,
    TIMINGS,
    'comparisons.csv',
    'classes.csv',
    'confusions.csv',
    'table.md',
    'plot.png',
    SENTENCE,
)
