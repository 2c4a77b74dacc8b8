"""How VQA's official evaluation normalizes an answer.

The rules are those of ``PythonEvaluationTools/vqaEvaluation/vqaEval.py`` of
github.com/GT-Vision-Lab/VQA, its slips included: a figure counts only if it agrees with
what the evaluation server computes. METER makes its vocabulary with the same rules.
"""

import re

#: Each form is restored where one of its apostrophes is missing: "couldnt've" and
#: "couldn'tve" become "couldn't've". Forms with a capital I are in the official table,
#: but words are in lower case when it is read.
_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
    hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am
    might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at
    shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've
    'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd
    where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()
CONTRACTIONS = {
    form[: at.start()] + form[at.end() :]: form
    for form in _APOSTROPHES
    for at in re.finditer("'", form)
}
CONTRACTIONS["somebody'd"] = 'somebodyd'  # as in the official table

_WORDS = 'zero one two three four five six seven eight nine ten'
NUMBERS = {word: str(i) for i, word in enumerate(_WORDS.split())} | {'none': '0'}
ARTICLES = frozenset(('a', 'an', 'the'))
PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r'\d,\d')
_PERIOD = re.compile(r'\.(?!\d)')
#: The official code passes a flag (re.UNICODE) where ``sub`` takes a count.
_PERIODS = 32


def clean_answer(answer: str) -> str:
    """Return an answer without tabs, line breaks and space around it."""
    return answer.replace('\n', ' ').replace('\t', ' ').strip()


def normalize_answer(answer: str) -> str:
    """Return the form of an answer in which VQA's evaluation compares it.

    Punctuation goes: a mark that stands beside a space somewhere in the answer, or any
    mark if there is a number with a comma, is removed; others become a space. Periods go
    unless a digit follows. Then words in lower case: zero to ten become digits ("none"
    is 0), articles are left out, and contractions get their apostrophe back.

    Args:
        answer (str): Any text.

    Returns:
        str: Words with single spaces between; empty for "the", for example.
    """
    text = clean_answer(answer)
    removes_all = _COMMA_IN_NUMBER.search(text) is not None
    spaced = text
    for mark in PUNCTUATION:
        removed = removes_all or f'{mark} ' in text or f' {mark}' in text
        spaced = spaced.replace(mark, '' if removed else ' ')
    words = _PERIOD.sub('', spaced, count=_PERIODS).lower().split()
    numbered = (NUMBERS.get(w, w) for w in words)
    return ' '.join(CONTRACTIONS.get(w, w) for w in numbered if w not in ARTICLES)
