"""Scores of every image with every caption: encoded once, fused in batches, split over ranks.

The encoders run once an image and once a caption; a pair then costs its fusion only.
Tokens wait in the memory of the host. A process holds the tokens of its own images and of
all captions, and scores its images with all captions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.dist import all_gather, all_gather_object, get_rank, is_main_process
from torch import Tensor, nn

from lm4ve.tasks.base.progress import progress

#: Rows that processes exchange at a time.
_CHUNK = 4096


@dataclass
class Encoded:
    """What one process has encoded, on the CPU.

    Attributes:
        keys (list[tuple]): What an image is known by in all processes, in the order of
            the data set: its number first.
        images (list[Tensor]): Tokens ``[N, C]`` of each image.
        texts (list[list[Tensor]]): Tokens ``[L, C]`` of each of its captions.
        image_embeddings (list[Tensor]): ``[E]`` of each image, for coarse scores.
        text_embeddings (list[Tensor]): ``[S, E]`` of the captions of each image.
        notes (list[dict]): What is to be known of each image in the results.
    """

    keys: list[tuple] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    texts: list[list[Tensor]] = field(default_factory=list)
    image_embeddings: list[Tensor] = field(default_factory=list)
    text_embeddings: list[Tensor] = field(default_factory=list)
    notes: list[dict] = field(default_factory=list)

    def take(self, places: Sequence[int]) -> 'Encoded':
        """Return some of the images, in that order."""
        values = {k: v and [v[i] for i in places] for k, v in vars(self).items()}
        return Encoded(**values)


@dataclass
class PairScores:
    """Scores of all pairs, the same in every process.

    Attributes:
        scores (Tensor): fp32 ``[I, T]``, as they are to be ranked.
        image_of_caption (Tensor): int64 ``[T]``.
        notes (list[dict]): Of each image.
        exact (Tensor, optional): fp32 ``[I, T]``, if ``scores`` are coarse-to-fine and
            all pairs were scored too.
    """

    scores: Tensor
    image_of_caption: Tensor
    notes: list[dict]
    exact: Tensor | None = None


def score_all_pairs(
    model: nn.Module,
    encoded: Encoded,
    pairs_per_batch: int,
    top_k: int | None = None,
    compare: bool = False,
) -> PairScores:
    """Score all pairs of images and captions of all processes. All of them have to call it.

    Args:
        model (nn.Module): Has ``score_pairs``.
        encoded (Encoded): Of this process. Images that several have count once.
        pairs_per_batch (int): How many pairs are fused at a time.
        top_k (int, optional): Fuse only the pairs whose cheap score is among the k best of
            their image or of their caption; the others come after these, in the order of
            their cheap scores.
        compare (bool): With ``top_k``, also return the exact scores.
    """
    owned, counts = _share(encoded)
    flat = [t for texts in owned.texts for t in texts]
    lengths = _everywhere([len(t) for t in flat])
    # An empty piece says width and type where a process has no caption.
    tokens = _gather_rows(torch.cat([encoded.texts[0][0][:0], *flat]))
    chosen = cheap = None
    batches = _all_pairs(len(owned.images), lengths, pairs_per_batch)
    if top_k is not None:
        cheap = _cheap_scores(encoded, owned)
        chosen = _best_pairs(cheap, top_k)
        if not compare:
            first = sum(counts[: get_rank()])
            own = chosen[first : first + len(owned.images)]
            batches = _some_pairs(own, pairs_per_batch)
    scores = _gather_rows(_score(model, owned.images, tokens.split(lengths), *batches))
    per_image = torch.tensor(_everywhere([len(t) for t in owned.texts]))
    owner = torch.arange(len(per_image)).repeat_interleave(per_image)
    found = PairScores(scores, owner, _everywhere(owned.notes))
    if chosen is not None:
        found.scores = _behind(scores, chosen, cheap)
        found.exact = scores if compare else None
    keys = _everywhere(owned.keys)
    return _reordered(found, sorted(range(len(keys)), key=keys.__getitem__))


def _everywhere(own: list) -> list:
    """Return the entries of all processes, those of the first one first."""
    return [entry for part in all_gather_object(own) for entry in part]


def _share(encoded: Encoded) -> tuple[Encoded, list[int]]:
    """Return the images that this process is to score, and how many each process has.

    Samplers give some images to two processes, so that all have equally many.
    """
    everywhere = all_gather_object(encoded.keys)
    owner: dict[tuple, int] = {}
    for rank, keys in enumerate(everywhere):
        for key in keys:
            owner.setdefault(key, rank)
    own = {k: i for i, k in reversed(list(enumerate(encoded.keys))) if owner[k] == get_rank()}
    counts = [0] * len(everywhere)
    for rank in owner.values():
        counts[rank] += 1
    return encoded.take([own[k] for k in sorted(own)]), counts


def _reordered(found: PairScores, order: list[int]) -> PairScores:
    """Put images, and captions with them, into another order."""
    rows = torch.tensor(order)
    counts = torch.bincount(found.image_of_caption, minlength=len(order))
    parts = torch.arange(len(found.image_of_caption)).split(counts.tolist())
    columns = torch.cat([parts[i] for i in order])
    owner = torch.arange(len(order)).repeat_interleave(counts[rows])
    exact = None if found.exact is None else found.exact[rows][:, columns]
    notes = [found.notes[i] for i in order]
    return PairScores(found.scores[rows][:, columns], owner, notes, exact)


def _gather_rows(own: Tensor) -> Tensor:
    """Return the rows of all processes, on the CPU: each may have another number of them.

    Args:
        own (Tensor): ``[R, ...]``, any type.
    """
    counts = all_gather_object(len(own))
    if len(counts) == 1:
        return own
    # Bytes, since not every back-end moves all types.
    row = own[:0].flatten(1).shape[1] * own.element_size()
    data = own.contiguous().flatten(1).view(torch.uint8) if len(own) else own.new_empty(0)
    parts: list[list[Tensor]] = [[] for _ in counts]
    for start in range(0, max(counts), _CHUNK):
        size = min(_CHUNK, max(counts) - start)
        sent = torch.zeros(size, row, dtype=torch.uint8)
        piece = data[start : start + size]
        if len(piece):
            sent[: len(piece)] = piece
        for part, count, got in zip(parts, counts, all_gather(sent), strict=True):
            # A copy of its own, so that padding is not kept.
            part.append(got[: max(0, count - start)].cpu().clone())
    whole = torch.cat([piece for part in parts for piece in part])
    return whole.view(own.dtype).unflatten(1, own.shape[1:])


def _cheap_scores(encoded: Encoded, owned: Encoded) -> Tensor:
    """Return the products of the embeddings of all images and captions, ``[I, T]``."""
    none = encoded.text_embeddings[0][:0]
    images = torch.cat([none, *(e[None] for e in owned.image_embeddings)])
    texts = torch.cat([none, *owned.text_embeddings])
    return _gather_rows(images) @ _gather_rows(texts).T


def _best_pairs(cheap: Tensor, k: int) -> Tensor:
    """Return bool ``[I, T]``: the k best captions of each image, and images of each caption."""
    chosen = torch.zeros_like(cheap, dtype=torch.bool)
    for dim in (0, 1):
        best = cheap.topk(min(k, cheap.shape[dim]), dim=dim).indices
        chosen.scatter_(dim, best, torch.ones_like(best, dtype=torch.bool))
    return chosen


def _behind(exact: Tensor, chosen: Tensor, cheap: Tensor) -> Tensor:
    """Return the scores of the chosen pairs, and behind all of these the cheap ones."""
    below = exact[chosen].min() - 1 - cheap.max()
    return torch.where(chosen, exact, cheap + below)


Batches = tuple[int, Iterator[tuple[Tensor, Tensor]]]


def _all_pairs(images: int, lengths: Sequence[int], size: int) -> Batches:
    """Return how many batches all pairs make, and the batches: places of images, captions.

    Captions of one length come together, so that few of their tokens are padding.
    """
    by_length = torch.argsort(torch.tensor(lengths), stable=True)
    groups = by_length.split(min(size, len(by_length)))
    rows = torch.arange(images).split(max(1, size // len(groups[0]))) if images else []
    batches = (
        (i.repeat_interleave(len(captions)), captions.repeat(len(i)))
        for captions in groups
        for i in rows
    )
    return len(groups) * len(rows), batches


def _some_pairs(chosen: Tensor, size: int) -> Batches:
    """Return the batches of the chosen pairs, as :func:`_all_pairs` does."""
    pairs = chosen.nonzero().split(size) if chosen.any() else []
    return len(pairs), ((p[:, 0], p[:, 1]) for p in pairs)


def _score(
    model: nn.Module,
    images: Sequence[Tensor],
    texts: Sequence[Tensor],
    count: int,
    batches: Iterator[tuple[Tensor, Tensor]],
) -> Tensor:
    """Return the scores of this process, ``[images, texts]``; 0 where none was wanted."""
    device = next(model.parameters()).device
    scores = torch.zeros(len(images), len(texts))
    if is_main_process():
        batches = progress(batches, 'scoring pairs', count)
    last, padded, padding = None, None, None
    for rows, columns in batches:
        first, image_of = rows.unique(return_inverse=True)
        some, text_of = columns.unique(return_inverse=True)
        if last is None or not torch.equal(some, last):  # batches in a row share captions
            last = some
            padded, padding = _padded([texts[t] for t in some], device)
        tokens = torch.stack([images[i] for i in first]).to(device)
        image_of, text_of = image_of.to(device), text_of.to(device)
        found = model.score_pairs(tokens[image_of], padded[text_of], padding[text_of])
        scores[rows, columns] = found.float().cpu()
    return scores


def _padded(texts: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens ``[T, L, C]`` and bool ``[T, L]`` (True = padding) on a device."""
    padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    lengths = torch.tensor([len(t) for t in texts])
    padding = torch.arange(padded.shape[1]) >= lengths[:, None]
    return padded.to(device), padding.to(device)
