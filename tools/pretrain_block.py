"""Pre-train a small decoder on sequences without any language: a control for a block of text.

    python tools/pretrain_block.py --language dyck --arch bert:384x1536x12 \\
        --out work_dirs/dyck
    lm4ve train CONFIG --cfg-options model.neck.block.checkpoint=work_dirs/dyck

Weights that are pre-trained for minutes on formal languages help a vision transformer
("Can you learn to see without images?", arXiv 2511.13945; "Procedural pretraining",
arXiv 2601.21725). If such a block helps an encoder as much as one of text, then
language is not the reason. The languages, of which endless sequences are generated:

    dyck  brackets of --symbols kinds, nested at most --depth deep; a closing bracket
          has to match
    copy  symbols, and the same symbols again
    set   symbols, a mark, and each of the symbols once, in a fixed order of all symbols
    text  bytes of Python's own documentation and of the docstrings of its standard
          library

The tool prints the loss and the accuracy of what the language determines: of closing
brackets, of what repeats the symbols, of all bytes of text. One seed gives one result
on one machine.
"""

import argparse
import ast
import functools
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

# Before torch, whose threads read what this sets.
import lm4ve.commands  # noqa: F401  # isort: skip

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, BertConfig, LlamaConfig

from lm4ve.errors import UserError, check
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_parser, run_tool

#: Tokens ``[B, L]`` and, of the same shape, which of them the language determines.
Sequences = tuple[np.ndarray, np.ndarray]


# -------------------------------------------------------------------------- languages
def write_dyck(
    rng: np.random.Generator, shape: tuple[int, int], args: Any
) -> Sequences:
    """Return sequences of balanced brackets of several kinds (a Dyck language).

    Token i opens a bracket of kind i, token ``symbols + i`` closes it. At most
    ``depth`` brackets are open at once. Which kind closes is determined.

    Args:
        rng (np.random.Generator): Decides where brackets open, and their kinds.
        shape (tuple[int, int]): Sequences and their length. At an even length all
            brackets close, at an odd one the last one stays open.
        args (argparse.Namespace): With ``symbols``, the number of kinds, and ``depth``.
    """
    rows, length = shape
    row = np.arange(rows)
    # Of each sequence the kinds of the brackets that are open, and how many there are.
    stack = np.zeros((rows, args.depth + 1), int)
    height = np.zeros(rows, int)
    tokens = np.zeros(shape, int)
    determined = np.zeros(shape, bool)
    for i in range(length):
        wants_to_open = rng.random(rows) < 0.5
        has_to_open = height == 0
        # All that is open has to close in the rest. At an even length both are even or
        # both are odd, so that where the rest is longer, one more pair fits.
        can_still_close = height < length - i
        opens = wants_to_open | has_to_open
        opens = opens & (height < args.depth) & can_still_close
        kind = rng.integers(args.symbols, size=rows)
        innermost = stack[row, height - 1]  # of no meaning where none is open
        tokens[:, i] = np.where(opens, kind, args.symbols + innermost)
        determined[:, i] = ~opens
        stack[row[opens], height[opens]] = kind[opens]
        height += np.where(opens, 1, -1)
    return tokens, determined


def write_copy(
    rng: np.random.Generator, shape: tuple[int, int], args: Any
) -> Sequences:
    """Return symbols, and the same symbols again: the second half is determined.

    Args:
        rng (np.random.Generator): Draws the symbols.
        shape (tuple[int, int]): Sequences and their length, at least 2.
        args (argparse.Namespace): With ``symbols``, how many different ones there are.
    """
    rows, length = shape
    half = length // 2
    symbols = rng.integers(args.symbols, size=(rows, half))
    # Twice; an odd length begins a third time.
    tokens = np.tile(symbols, 3)[:, :length]
    is_second = np.arange(length) >= half
    return tokens, np.tile(is_second, (rows, 1))


def write_set(rng: np.random.Generator, shape: tuple[int, int], args: Any) -> Sequences:
    """Return symbols, a mark, and the same symbols once each; more marks fill up."""
    rows, length = shape
    half = length // 2 - 1
    mark = args.symbols
    questions = rng.integers(args.symbols, size=(rows, half))
    tokens = np.full(shape, mark)
    tokens[:, :half] = questions
    determined = np.zeros(shape, bool)
    for row, question in enumerate(questions):
        answer = np.unique(question)  # ascending
        place = slice(half + 1, half + 1 + len(answer))
        tokens[row, place] = answer
        determined[row, place] = True
    return tokens, determined


@functools.cache
def documentation() -> np.ndarray:
    """Return the bytes of Python's documentation that is installed with it."""
    texts = [topics[name] for name in sorted(topics)]
    for path in sorted(Path(sysconfig.get_path('stdlib')).glob('*.py')):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                texts.append(ast.get_docstring(node))
    whole = '\n\n'.join(text for text in texts if text)
    return np.frombuffer(whole.encode(), np.uint8)


def write_text(
    rng: np.random.Generator, shape: tuple[int, int], args: Any
) -> Sequences:
    """Return pieces of the documentation as bytes, each of which begins at a random place.

    Args:
        rng (np.random.Generator): Draws the places.
        shape (tuple[int, int]): Sequences and their length.
        args (argparse.Namespace): Not used; text has no symbols to choose.

    Returns:
        Sequences: The bytes, and True for each: as all of a text is learned, none is noise.
    """
    rows, length = shape
    text = documentation()
    starts = rng.integers(len(text) - length, size=(rows, 1))
    tokens = text[starts + np.arange(length)].astype(int)
    return tokens, np.ones(shape, bool)


class Language(NamedTuple):
    """A language.

    Attributes:
        write (callable): Writes sequences, see :func:`write_dyck`.
        count_tokens (callable): The size of the vocabulary for a number of symbols.
        trains_all (bool): Whether all tokens train; the questions of copy and set are
            noise.
    """

    write: Callable[..., Sequences]
    count_tokens: Callable[[int], int]
    trains_all: bool


LANGUAGES = {
    'dyck': Language(write_dyck, lambda symbols: 2 * symbols, True),
    'copy': Language(write_copy, lambda symbols: symbols, False),
    'set': Language(write_set, lambda symbols: symbols + 1, False),
    'text': Language(write_text, lambda symbols: 256, True),
}


# -------------------------------------------------------------------------- training
def build_model(arch: str, layers: int, vocabulary: int, length: int) -> Any:
    """Build a causal model, for example of ``bert:384x1536x12``: width, hidden width, heads."""
    family, _, sizes = arch.partition(':')
    check('--arch', family, choices=('bert', 'llama'))
    wrong = UserError(
        f'--arch={arch!r} must be FAMILY:WIDTHxHIDDENxHEADS, as llama:576x1536x9.'
    )
    numbers = [int(number) for number in sizes.split('x') if number.isdecimal()]
    if len(numbers) != 3 or 0 in numbers:
        raise wrong
    width, hidden, heads = numbers
    if width % heads:
        raise wrong
    common = dict(
        hidden_size=width,
        intermediate_size=hidden,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        max_position_embeddings=length,
    )
    if family == 'llama':
        config = LlamaConfig(**common)
    else:
        config = BertConfig(
            **common,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            is_decoder=True,
        )
    return AutoModelForCausalLM.from_config(config)


def measure(
    model: Any, tokens: np.ndarray, determined: np.ndarray, trains_all: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss and the accuracy of the next tokens."""
    x = torch.from_numpy(tokens)
    targets = x[:, 1:]
    known = torch.from_numpy(determined)[:, 1:]
    with torch.autocast('cpu', torch.bfloat16):
        logits = model(input_ids=x[:, :-1]).logits.float()
    trained = known
    if trains_all:
        trained = torch.ones_like(known)
    loss = F.cross_entropy(logits[trained], targets[trained])
    hits = logits.detach().argmax(-1) == targets
    return loss, hits[known].float().mean()


def build_optimizer(model: Any, rate: float) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        dict(params=matrices, weight_decay=0.1),
        dict(params=vectors, weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.98))


def train(args: argparse.Namespace) -> tuple[Any, list[dict[str, float]]]:
    """Train a model; return it and what was printed."""
    language = LANGUAGES[args.language]
    vocabulary = language.count_tokens(args.symbols)
    torch.manual_seed(args.seed)
    model = build_model(args.arch, args.layers, vocabulary, args.length)
    rng = np.random.default_rng(args.seed)
    shape = (args.batch_size, args.length + 1)
    optimizer = build_optimizer(model, args.lr)
    # OneCycleLR needs steps on both sides of its peak.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, max(10, args.steps))
    start = time.perf_counter()
    interval = max(1, args.steps // 20)
    recent = []
    log = []
    for step in range(1, args.steps + 1):
        tokens, determined = language.write(rng, shape, args)
        loss, accuracy = measure(model, tokens, determined, language.trains_all)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cycle.step()
        recent.append((loss.item(), accuracy.item()))
        if step % interval == 0:
            mean_loss, mean_accuracy = np.mean(recent, axis=0)
            row = dict(
                step=step,
                loss=mean_loss,
                accuracy=100 * mean_accuracy,
                seconds=time.perf_counter() - start,
            )
            log.append(row)
            recent.clear()
            print(describe(row), flush=True)
    return model, log


def describe(row: dict[str, float]) -> str:
    return (
        f'step {row["step"]}: loss {row["loss"]:.3f}, '
        f'accuracy {row["accuracy"]:.1f} % ({row["seconds"]:.0f} s)'
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    add = parser.add_argument
    add('--language', required=True, choices=LANGUAGES)
    add(
        '--arch',
        default='bert:384x1536x12',
        help='llama or bert; width, hidden width, heads',
    )
    add('--layers', type=int, default=2, help='the last one is the block by default')
    add('--steps', type=int, default=2000)
    add('--batch-size', type=int, default=32)
    add('--length', type=int, default=64, help='tokens of a sequence')
    add(
        '--symbols',
        type=int,
        default=64,
        help='kinds of brackets, or symbols of copy and set',
    )
    add('--depth', type=int, default=16, help='of nested brackets')
    add('--lr', type=float, default=1e-3)
    add('--seed', type=int, default=0)
    add(
        '--out',
        type=Path,
        required=True,
        help='folder for config.json and model.safetensors',
    )
    args = parser.parse_args(argv)
    check('--layers', args.layers, least=1)
    check('--steps', args.steps, least=1)
    check('--batch-size', args.batch_size, least=1)
    check('--length', args.length, least=8)
    check('--symbols', args.symbols, least=2)
    check('--depth', args.depth, least=1)
    model, log = train(args)
    model.save_pretrained(args.out)
    content = {**vars(args), 'out': str(args.out), 'log': log}
    write_json(content, args.out / 'pretraining.json')


if __name__ == '__main__':
    run_tool(main)
