"""Validation and test of retrieval: every image is scored with every caption.

MMEngine's loops give one batch at a time to the model and the metrics; a recall needs
the scores of pairs across all batches. The encoders run once an image and once a
caption; a pair then costs its fusion only. Tokens wait in the memory of the host. A
process holds the tokens of its own images and of all captions, and scores its images
with all captions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from tqdm import tqdm

from lm4ve.errors import build_from, check, require
from lm4ve.registry import LOOPS
from lm4ve.runner.same_data import innermost
from lm4ve.text.structures import VisionLanguageDataSample


@dataclass
class EncodedImage:
    """An image and its S captions after the encoders, on the CPU.

    Attributes:
        key (tuple): The same in all processes; its order is that of the data set.
        tokens (Tensor, optional): ``[N, C]``; None for an image of another process.
        captions (list[Tensor]): Tokens ``[L, C]`` of each caption, without padding.
        embedding (Tensor, optional): ``[1, E]``, for coarse scores.
        caption_embeddings (Tensor, optional): ``[S, E]``.
    """

    key: tuple
    tokens: Tensor | None
    captions: list[Tensor]
    embedding: Tensor | None = None
    caption_embeddings: Tensor | None = None


def score_all_pairs(
    model: nn.Module,
    encoded: Sequence[EncodedImage],
    pairs_per_batch: int,
    top_k: int | None = None,
) -> dict[str, Any]:
    """Score all pairs of images and captions of all processes. All of them have to call it.

    Args:
        model (nn.Module): Has ``score_pairs``.
        encoded (Sequence[EncodedImage]): Of this process. Samplers give some images to
            two processes, so that all have equally many; these count once.
        pairs_per_batch (int): How many pairs are fused at a time.
        top_k (int, optional): Fuse only the pairs whose cheap score is among the k best
            of their image or of their caption; the others come after these, in the
            order of their cheap scores.

    Returns:
        dict: The same in every process, in the order of the data set: ``scores`` fp32
        ``[I, T]``, and ``image_of_caption`` int64 ``[T]``.
    """
    everywhere = all_gather_object([replace(e, tokens=None) for e in encoded])
    owners = {
        e.key: (e, rank)
        for rank in reversed(range(len(everywhere)))
        for e in everywhere[rank]
    }
    images, ranks = zip(*(owners[key] for key in sorted(owners)), strict=True)
    captions = [c for e in images for c in e.captions]
    image_of_caption = torch.tensor(
        [i for i, e in enumerate(images) for _ in e.captions]
    )
    chosen = torch.ones(len(images), len(captions), dtype=torch.bool)
    if top_k is not None:
        cheap = torch.cat([e.embedding for e in images])
        cheap = cheap @ torch.cat([e.caption_embeddings for e in images]).T
        chosen = _best_pairs(cheap, top_k)
    tokens = {e.key: e.tokens for e in encoded if e.tokens is not None}
    rows = [i for i, rank in enumerate(ranks) if rank == get_rank()]
    own = [tokens[images[i].key] for i in rows]
    scores = torch.zeros(chosen.shape)
    own_scores = score_chosen(model, own, captions, chosen[rows], pairs_per_batch)
    for some, found in all_gather_object((rows, own_scores)):
        scores[some] = found
    if top_k is not None:
        below = scores[chosen].min() - 1 - cheap.max()
        scores = torch.where(chosen, scores, cheap + below)
    return dict(scores=scores, image_of_caption=image_of_caption)


def _best_pairs(cheap: Tensor, k: int) -> Tensor:
    """Return bool ``[I, T]``: the k best captions of each image, and images of each caption."""
    chosen = torch.zeros_like(cheap, dtype=torch.bool)
    for dim in (0, 1):
        chosen.scatter_(
            dim, cheap.topk(min(k, cheap.shape[dim]), dim=dim).indices, True
        )
    return chosen


def encode_captions(model: Any, texts: Sequence[str], size: int) -> list[Tensor]:
    """Encode texts, ``size`` at a time, to tokens ``[L, C]`` each, without padding, on the CPU."""
    ids, padding = model.data_preprocessor.tokenize(list(texts))
    parts = zip(ids.split(size), padding.split(size), strict=True)
    tokens = torch.cat([model.encode_texts(*part) for part in parts]).cpu()
    # Copies, so that the tensor of the batch is freed.
    return [
        t[:n].clone() for t, n in zip(tokens, (~padding).sum(1).tolist(), strict=True)
    ]


def score_chosen(
    model: Any,
    images: Sequence[Tensor],
    captions: Sequence[Tensor],
    chosen: Tensor,
    size: int,
) -> Tensor:
    """Return the scores of chosen pairs, fp32 ``[I, T]`` on the CPU; 0 for the others.

    Captions of similar lengths come together, so that few of their tokens are padding.

    Args:
        model (nn.Module): Has ``score_pairs``.
        images (Sequence[Tensor]): I times tokens ``[N, C]``.
        captions (Sequence[Tensor]): T times tokens ``[L, C]``, without padding.
        chosen (Tensor): bool ``[I, T]``.
        size (int): How many pairs are fused at a time.
    """
    device = next(model.parameters()).device
    scores = torch.zeros(chosen.shape)
    lengths = torch.tensor([len(c) for c in captions])
    groups = lengths.argsort(stable=True).split(size)
    for columns in tqdm(
        groups, 'scoring pairs', disable=None if is_main_process() else True
    ):
        texts = nn.utils.rnn.pad_sequence(
            [captions[t] for t in columns], batch_first=True
        )
        padding = (torch.arange(texts.shape[1]) >= lengths[columns, None]).to(device)
        texts = texts.to(device)
        for pairs in chosen[:, columns].nonzero().split(size):
            rows, image_of = pairs[:, 0].unique(return_inverse=True)
            if not len(rows):
                continue
            tokens = torch.stack([images[i] for i in rows]).to(device)
            text_of = pairs[:, 1].to(device)
            found = model.score_pairs(
                tokens[image_of.to(device)], texts[text_of], padding[text_of]
            )
            scores[pairs[:, 0], columns[pairs[:, 1]]] = found.float().cpu()
    return scores


def _coarse_fields(top_k: int = 128) -> dict[str, int]:
    """Return the fields of ``coarse``."""
    return dict(top_k=top_k)


class _RetrievalLoop:
    """What validation and test share; :class:`RetrievalValLoop` describes the arguments."""

    #: What MMEngine's hooks are called for.
    mode: str
    # Set by MMEngine's loop, the other base.
    runner: Any
    dataloader: Any
    evaluator: Any
    fp16: bool

    def __init__(
        self,
        *args: Any,
        pairs_per_batch: int = 256,
        coarse: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        field = f'{self.mode}_cfg'
        check(f'{field}.pairs_per_batch', pairs_per_batch, kind=int, least=1)
        self.coarse: dict[str, int] = {}
        if coarse is not None:
            self.coarse = build_from(_coarse_fields, coarse, f'{field}.coarse')
            check(f'{field}.coarse.top_k', self.coarse['top_k'], kind=int, least=1)
        self.pairs_per_batch = pairs_per_batch
        test_mode = getattr(self.dataloader.dataset, 'test_mode', True)
        require(
            test_mode,
            f'{self.mode}_dataloader.dataset.test_mode=False draws captions at random. Fix: '
            f'{self.mode}_dataloader.dataset.test_mode=True.',
        )
        self._encoded: list[EncodedImage] = []

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Encode the images of a batch and their captions; after the last one, score all pairs."""
        hook, samples = self.runner.call_hook, data_batch['data_samples']
        hook(f'before_{self.mode}_iter', batch_idx=idx, data_batch=data_batch)
        model = innermost(self.runner.model)
        with autocast(enabled=self.fp16):
            self._encoded += self._encode(model, data_batch['inputs'], samples)
            if idx + 1 == len(self.dataloader):
                encoded, self._encoded = self._encoded, []
                scores = score_all_pairs(
                    model, encoded, self.pairs_per_batch, **self.coarse
                )
                self.evaluator.process(data_samples=[scores])
        hook(
            f'after_{self.mode}_iter',
            batch_idx=idx,
            data_batch=data_batch,
            outputs=samples,
        )

    def _encode(
        self, model: Any, inputs: Any, samples: list[VisionLanguageDataSample]
    ) -> list[EncodedImage]:
        images = model.encode_images(model.data_preprocessor.normalize(inputs))
        # As many captions at a time as pairs: an image may have hundreds.
        texts = [t for s in samples for t in s.text]
        rows = iter(encode_captions(model, texts, self.pairs_per_batch))
        encoded = []
        for sample, image in zip(samples, images, strict=True):
            key = (sample.sample_idx, sample.img_path)
            captions = [next(rows) for _ in sample.text]
            e = EncodedImage(key, image.clone().cpu(), captions)
            if self.coarse:
                first = torch.stack([c[0] for c in captions]).to(image.device)
                e.embedding = model.head.embed(
                    'image', model.image_token(image[None])
                ).cpu()
                e.caption_embeddings = model.head.embed('text', first).cpu()
            encoded.append(e)
        return encoded


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
        coarse (dict, optional): ``dict(top_k=128)``: rank the pairs by the product of
            embeddings (the head's contrastive loss trains them) and fuse only the
            ``top_k`` best of each image and of each caption.

    Raises:
        UserError: An argument is wrong, or the data set is one of single captions.
    """

    mode = 'val'


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop, TestLoop):
    """Test retrieval as :class:`RetrievalValLoop` validates it, with the same arguments."""

    mode = 'test'
