"""Validation and test of retrieval: every image is scored with every caption.

MMEngine's loops hand one batch at a time to the model and the metrics; a recall needs the
scores of pairs across all batches. The encoders run once an image and once a caption; a pair
then costs its fusion only. Tokens wait in the memory of the host. A process holds the tokens
of its own images and of all captions, and scores its images with all captions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from tqdm import tqdm

from lm4ve.errors import check
from lm4ve.registry import LOOPS
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample

Batches = tuple[int, Iterator[tuple[Tensor, Tensor]]]


@dataclass
class EncodedImage:
    """An image and its S captions after the encoders, on the CPU.

    Attributes:
        key (tuple): The same in all processes; its order is that of the data set.
        tokens (Tensor): ``[N, C]``.
        captions (list[Tensor]): Tokens ``[L, C]`` of each caption, without padding.
        note (dict): What the results hold of the image.
        embedding (Tensor, optional): ``[1, E]``, for coarse scores.
        caption_embeddings (Tensor, optional): ``[S, E]``.
    """

    key: tuple
    tokens: Tensor
    captions: list[Tensor]
    note: dict
    embedding: Tensor | None = None
    caption_embeddings: Tensor | None = None


def score_all_pairs(
    model: nn.Module,
    encoded: Sequence[EncodedImage],
    pairs_per_batch: int,
    top_k: int | None = None,
    compare: bool = False,
) -> dict[str, Any]:
    """Score all pairs of images and captions of all processes. All of them have to call it.

    Args:
        model (nn.Module): Has ``score_pairs``.
        encoded (Sequence[EncodedImage]): Of this process. Samplers give some images to two
            processes, so that all have equally many; these count once.
        pairs_per_batch (int): How many pairs are fused at a time.
        top_k (int, optional): Fuse only the pairs whose cheap score is among the k best of
            their image or of their caption; the others come after these, in the order of
            their cheap scores.
        compare (bool): With ``top_k``, also return the exact scores.

    Returns:
        dict: The same in every process, in the order of the data set: ``scores`` fp32
        ``[I, T]``, ``image_of_caption`` int64 ``[T]``, ``images`` (the notes), and with
        ``compare`` ``exact_scores`` fp32 ``[I, T]``.
    """
    seen = {key for keys in all_gather_object([e.key for e in encoded])[: get_rank()]
            for key in keys}  # fmt: skip
    first = len(seen)  # of this process among all images
    own = [e for e in encoded if not (e.key in seen or seen.add(e.key))]
    captions = [c for e in own for c in e.captions]
    lengths = _everywhere([len(c) for c in captions])
    # An empty piece has the width and the type, where a process has no caption.
    tokens = _gather_rows(torch.cat([encoded[0].captions[0][:0], *captions]))
    owner = torch.tensor(_everywhere([len(e.captions) for e in own]))
    owner = torch.arange(len(owner)).repeat_interleave(owner)
    batches = _all_pairs(len(own), lengths, pairs_per_batch)
    if top_k is not None:
        none = encoded[0].caption_embeddings[:0]
        images = _gather_rows(torch.cat([none, *(e.embedding for e in own)]))
        texts = _gather_rows(torch.cat([none, *(e.caption_embeddings for e in own)]))
        cheap = images @ texts.T
        chosen = _best_pairs(cheap, top_k)
        if not compare:
            batches = _some_pairs(chosen[first : first + len(own)], pairs_per_batch)
    images = [e.tokens for e in own]
    found = dict(scores=_gather_rows(_score(model, images, tokens.split(lengths), *batches)))
    if top_k is not None:
        exact = found['scores']
        below = exact[chosen].min() - 1 - cheap.max()
        found['scores'] = torch.where(chosen, exact, cheap + below)
        if compare:
            found['exact_scores'] = exact
    keys, notes = _everywhere([e.key for e in own]), _everywhere([e.note for e in own])
    order = sorted(range(len(keys)), key=keys.__getitem__)
    owner = torch.tensor(order).argsort()[owner]
    columns = owner.argsort(stable=True)
    found = {k: scores[order][:, columns] for k, scores in found.items()}
    return dict(found, image_of_caption=owner[columns], images=[notes[i] for i in order])


def _everywhere(own: list) -> list:
    """Return the entries of all processes, those of the first one first."""
    return [entry for part in all_gather_object(own) for entry in part]


def _gather_rows(own: Tensor) -> Tensor:
    """Return the rows ``[R, ...]`` of all processes, which may have different numbers of them."""
    parts = []
    for rank, count in enumerate(all_gather_object(len(own))):
        part = own.contiguous() if rank == get_rank() else own.new_empty(count, *own.shape[1:])
        if len(part):
            # Bytes, since not every back-end moves all types.
            broadcast(part.view(torch.uint8), src=rank)
        parts.append(part)
    return torch.cat(parts)


def _best_pairs(cheap: Tensor, k: int) -> Tensor:
    """Return bool ``[I, T]``: the k best captions of each image, and images of each caption."""
    chosen = torch.zeros_like(cheap, dtype=torch.bool)
    for dim in (0, 1):
        chosen.scatter_(dim, cheap.topk(min(k, cheap.shape[dim]), dim=dim).indices, True)
    return chosen


def _all_pairs(images: int, lengths: Sequence[int], size: int) -> Batches:
    """Return how many batches all pairs make, and the batches: indices of images, of captions.

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
    """Return the scores of this process, ``[images, texts]``; 0 for pairs outside the batches."""
    device = next(model.parameters()).device
    scores = torch.zeros(len(images), len(texts))
    if is_main_process():
        batches = tqdm(batches, 'scoring pairs', count, disable=None)
    last = padded = padding = None
    for rows, columns in batches:
        first, image_of = rows.unique(return_inverse=True)
        some, text_of = columns.unique(return_inverse=True)
        if last is None or not torch.equal(some, last):  # batches in a row share captions
            last = some
            padded = nn.utils.rnn.pad_sequence([texts[t] for t in some], batch_first=True)
            lengths = torch.tensor([len(texts[t]) for t in some])
            padding = (torch.arange(padded.shape[1]) >= lengths[:, None]).to(device)
            padded = padded.to(device)
        tokens = torch.stack([images[i] for i in first]).to(device)
        image_of, text_of = image_of.to(device), text_of.to(device)
        found = model.score_pairs(tokens[image_of], padded[text_of], padding[text_of])
        scores[rows, columns] = found.float().cpu()
    return scores


class _RetrievalLoop:
    """What validation and test share; :class:`RetrievalValLoop` describes the arguments."""

    #: What MMEngine's hooks are called for.
    mode: str

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        fp16: bool = False,
        pairs_per_batch: int = 256,
        coarse: dict | None = None,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        field = f'{self.mode}_cfg'
        check(f'{field}.pairs_per_batch', pairs_per_batch, kind=int, least=1)
        self.coarse = {} if coarse is None else dict(top_k=128, compare=False) | dict(coarse)
        check(f'{field}.coarse.top_k', self.coarse.get('top_k', 1), kind=int, least=1)
        self.pairs_per_batch = pairs_per_batch
        test_mode = getattr(self.dataloader.dataset, 'test_mode', True)
        check(f'{self.mode}_dataloader.dataset.test_mode', test_mode, choices=(True,))

    def run(self) -> dict:
        """Encode, score all pairs, evaluate.

        Returns:
            dict: The metrics.
        """
        hook, model = self.runner.call_hook, self.runner.model
        hook(f'before_{self.mode}')
        hook(f'before_{self.mode}_epoch')
        model.eval()
        self._model = model.module if is_model_wrapper(model) else model
        self._encoded: list[EncodedImage] = []
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        with torch.no_grad(), autocast(enabled=self.fp16):
            scores = score_all_pairs(
                self._model, self._encoded, self.pairs_per_batch, **self.coarse
            )
        del self._encoded
        self.evaluator.process(data_samples=[scores])
        metrics = self.evaluator.evaluate(1)
        hook(f'after_{self.mode}_epoch', metrics=metrics)
        hook(f'after_{self.mode}')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Encode the images of a batch and their captions."""
        hook, samples = self.runner.call_hook, data_batch['data_samples']
        hook(f'before_{self.mode}_iter', batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            self._encode(data_batch['inputs'], samples)
        hook(f'after_{self.mode}_iter', batch_idx=idx, data_batch=data_batch, outputs=samples)

    def _encode(self, inputs: Any, samples: list[VisionLanguageDataSample]) -> None:
        model = self._model
        images = model.encode_images(model.data_preprocessor.normalize(inputs))
        ids, padding = model.data_preprocessor.tokenize([t for s in samples for t in s.text])
        # As many captions at a time as pairs: an image may have hundreds.
        parts = zip(
            ids.split(self.pairs_per_batch), padding.split(self.pairs_per_batch), strict=True
        )
        texts = torch.cat([model.encode_texts(*part) for part in parts])
        counts = [len(s.text) for s in samples]
        embedded = [(None, None)] * len(samples)
        if self.coarse:
            image_rows = model.embed_images(images).float().cpu().split(1)
            text_rows = model.embed_texts(texts).float().cpu().split(counts)
            embedded = list(zip(image_rows, text_rows, strict=True))
        # Copies without padding, so that the tensors of the batch are freed.
        lengths = (~padding).sum(1).tolist()
        rows = iter([t[:n].clone() for t, n in zip(texts.cpu(), lengths, strict=True)])
        for sample, image, pair in zip(samples, images.cpu(), embedded, strict=True):
            key = (sample.sample_idx, sample.img_path)
            note = {k: sample.get(k) for k in ('img_path', 'image_id', 'caption_ids', 'text')}
            captions = [next(rows) for _ in sample.text]
            self._encoded.append(EncodedImage(key, image.clone(), captions, note, *pair))


@LOOPS.register_module()
class RetrievalValLoop(_RetrievalLoop, ValLoop):
    """Validation of retrieval: all pairs of images and captions.

    Each image and each caption is encoded once, split over the processes; each process
    scores its images with all captions. Tokens wait in the host's memory: a process
    holds those of all captions (for COCO's 25,000 with up to 40 tokens of 768 channels
    about 3 GB in fp32, half of it with ``fp16``) and of its own images.

    Args:
        runner, dataloader, evaluator: As for MMEngine's ``ValLoop``. The data set is in
            test mode: a sample is an image with all of its captions.
        fp16 (bool): Mixed precision, in fp16 on a GPU and in bf16 on a CPU.
        pairs_per_batch (int): How many pairs are fused at a time.
        coarse (dict, optional): ``dict(top_k=128, compare=False)``: rank the pairs by the
            product of embeddings (the head's contrastive loss trains them) and fuse only
            the ``top_k`` best of each image and of each caption. With ``compare=True``
            all pairs are fused too, and the metrics report what recall is lost.

    Raises:
        UserError: An argument is wrong, or the data set is one of single captions.
    """

    mode = 'val'


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop, TestLoop):
    """Test retrieval as :class:`RetrievalValLoop` validates it, with the same arguments."""

    mode = 'test'
