"""Pre-train a small decoder on sequences without any language: a control for a block of text.

    python tools/pretrain_block.py --language dyck --arch bert:384x1536x12 --out
    work_dirs/dyck lm4ve train CONFIG --cfg-options
    model.neck.block.checkpoint=work_dirs/dyck

Weights that are pre-trained for minutes on formal languages help a vision transformer
("Can you learn to see without images?", arXiv 2511.13945; "Procedural pretraining",
arXiv 2601.21725). If such a block helps an encoder as much as one of text, then
language is not the reason. The languages, of which endless sequences are generated:

dyck: brackets of --symbols kinds, nested at most --depth deep; a closing bracket has to
match. copy: symbols, and the same symbols again. set:  symbols, a mark, and each of the
symbols once, in a fixed order of all symbols. text: bytes of Python's own documentation
and of the docstrings of its standard library.

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
from typing import Any

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
    """Return balanced brackets; a bracket of kind i opens with token i and closes with k + i."""
    rows, length = shape
    k, row = args.symbols, np.arange(shape[0])
    stack, height = np.zeros((rows, args.depth + 1), int), np.zeros(rows, int)
    tokens, determined = np.zeros(shape, int), np.zeros(shape, bool)
    for i in range(length):
        opens = rng.random(rows) < 0.5
        opens = (opens | (height == 0)) & (height < args.depth) & (height < length - i)
        kind = rng.integers(k, size=rows)
        top = stack[row, height - 1]
        tokens[:, i] = np.where(opens, kind, k + top)
        determined[:, i] = ~opens
        stack[row[opens], height[opens]] = kind[opens]
        height += np.where(opens, 1, -1)
    return tokens, determined


def write_copy(
    rng: np.random.Generator, shape: tuple[int, int], args: Any
) -> Sequences:
    rows, length = shape
    half = length // 2
    tokens = np.tile(rng.integers(args.symbols, size=(rows, half)), 3)[:, :length]
    return tokens, np.tile(np.arange(length) >= half, (rows, 1))


def write_set(rng: np.random.Generator, shape: tuple[int, int], args: Any) -> Sequences:
    rows, length = shape
    half, mark = length // 2 - 1, args.symbols
    questions = rng.integers(args.symbols, size=(rows, half))
    tokens, determined = np.full(shape, mark), np.zeros(shape, bool)
    tokens[:, :half] = questions
    for row, question in enumerate(questions):
        answer = np.unique(question)  # ascending
        determined[row, half + 1 : half + 1 + len(answer)] = True
        tokens[row, half + 1 : half + 1 + len(answer)] = answer
    return tokens, determined


@functools.cache
def documentation() -> np.ndarray:
    """Return the bytes of Python's documentation that is installed with it."""
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    for path in sorted(Path(sysconfig.get_path('stdlib')).glob('*.py')):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                texts.append(ast.get_docstring(node) or '')
    return np.frombuffer('\n\n'.join(filter(None, texts)).encode(), np.uint8)


def write_text(
    rng: np.random.Generator, shape: tuple[int, int], args: Any
) -> Sequences:
    text, (rows, length) = documentation(), shape
    starts = rng.integers(len(text) - length, size=(rows, 1))
    return text[starts + np.arange(length)].astype(int), np.ones(shape, bool)


#: Language -> its writer, the size of its vocabulary, and whether all of its tokens
#: train: the questions of copy and set are noise.
LANGUAGES: dict[str, tuple[Callable[..., Sequences], Callable[[int], int], bool]] = {
    'dyck': (write_dyck, lambda k: 2 * k, True),
    'copy': (write_copy, lambda k: k, False),
    'set': (write_set, lambda k: k + 1, False),
    'text': (write_text, lambda k: 256, True),
}


# -------------------------------------------------------------------------- training
def build_model(arch: str, layers: int, vocabulary: int, length: int) -> Any:
    """Build a causal model, for example of ``bert:384x1536x12``: width, hidden width, heads."""
    family, _, sizes = arch.partition(':')
    check('--arch', family, choices=('bert', 'llama'))
    numbers = [int(n) for n in sizes.split('x') if n.isdecimal()]
    if len(numbers) != 3 or 0 in numbers or numbers[0] % numbers[2]:
        raise UserError(
            f'--arch={arch!r} must be FAMILY:WIDTHxHIDDENxHEADS, as llama:576x1536x9.'
        )
    names = 'hidden_size', 'intermediate_size', 'num_attention_heads'
    common = dict(zip(names, numbers, strict=True))
    common |= dict(
        num_hidden_layers=layers, vocab_size=vocabulary, max_position_embeddings=length
    )
    if family == 'llama':
        return AutoModelForCausalLM.from_config(LlamaConfig(**common))
    dropout = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return AutoModelForCausalLM.from_config(
        BertConfig(**common, **dropout, is_decoder=True)
    )


def measure(
    model: Any, tokens: np.ndarray, determined: np.ndarray, dense: bool
) -> list[Tensor]:
    """Return the loss and the accuracy of the next tokens."""
    x, known = torch.from_numpy(tokens), torch.from_numpy(determined)[:, 1:]
    with torch.autocast('cpu', torch.bfloat16):
        logits = model(input_ids=x[:, :-1]).logits.float()
    trained = torch.ones_like(known) if dense else known
    loss = F.cross_entropy(logits[trained], x[:, 1:][trained])
    hits = logits.detach().argmax(-1) == x[:, 1:]
    return [loss, hits[known].float().mean()]


def train(args: argparse.Namespace) -> tuple[Any, list[dict[str, float]]]:
    """Train a model; return it and what was printed."""
    write, vocabulary, dense = LANGUAGES[args.language]
    torch.manual_seed(args.seed)
    model = build_model(args.arch, args.layers, vocabulary(args.symbols), args.length)
    rng, shape = np.random.default_rng(args.seed), (args.batch_size, args.length + 1)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        dict(params=decayed, weight_decay=0.1),
        dict(params=plain, weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, args.lr, betas=(0.9, 0.98))
    # OneCycleLR needs steps on both sides of its peak.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, max(10, args.steps))
    start, recent, log = time.perf_counter(), [], []
    for step in range(1, args.steps + 1):
        loss, accuracy = measure(model, *write(rng, shape, args), dense)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cycle.step()
        recent.append((loss.item(), accuracy.item()))
        if step % max(1, args.steps // 20) == 0:
            now, recent = np.mean(recent, 0), []
            row = dict(step=step, loss=now[0], accuracy=100 * now[1])
            log.append(row | {'seconds': time.perf_counter() - start})
            print('step {step}: loss {loss:.3f}, accuracy {accuracy:.1f} % '
                  '({seconds:.0f} s)'.format(**log[-1]), flush=True)  # fmt: skip
    return model, log


def main(argv: Sequence[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, {})).add_argument
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
    for name, least in dict(
        layers=1, steps=1, batch_size=1, length=8, symbols=2, depth=1
    ).items():
        check(f'--{name.replace("_", "-")}', getattr(args, name), least=least)
    model, log = train(args)
    model.save_pretrained(args.out)
    write_json(
        {**vars(args), 'out': str(args.out), 'log': log}, args.out / 'pretraining.json'
    )


if __name__ == '__main__':
    run_tool(main)
