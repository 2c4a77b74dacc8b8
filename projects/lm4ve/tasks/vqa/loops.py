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
from torch.nn.utils.rnn import pad_sequence
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
    images, owners = _gather_images(encoded)
    captions = []
    image_of_caption = []
    for number, image in enumerate(images):
        captions += image.captions
        image_of_caption += [number] * len(image.captions)
    chosen = torch.ones(len(images), len(captions), dtype=torch.bool)
    if top_k is not None:
        cheap = _cheap_scores(images)
        chosen = _best_pairs(cheap, top_k)

    tokens: dict[tuple, Any] = {image.key: image.tokens for image in encoded}
    own = [number for number, rank in enumerate(owners) if rank == get_rank()]
    own_tokens = [tokens[images[number].key] for number in own]
    own_scores = score_chosen(model, own_tokens, captions, chosen[own], pairs_per_batch)
    scores = torch.zeros(chosen.shape)
    for rows, row_scores in all_gather_object((own, own_scores)):
        scores[rows] = row_scores
    if top_k is not None:
        # Pairs that were not fused come after all others, in the order of cheap scores.
        below = scores[chosen].min() - 1 - cheap.max()
        scores = torch.where(chosen, scores, cheap + below)
    return dict(scores=scores, image_of_caption=torch.tensor(image_of_caption))


def _gather_images(
    encoded: Sequence[EncodedImage],
) -> tuple[list[EncodedImage], list[int]]:
    """Gather the images of all processes, without their tokens.

    Returns:
        tuple[list[EncodedImage], list[int]]: The images in the order of the data set,
        and the process that scores each, the first of those that have it.
    """
    without_tokens = [replace(image, tokens=None) for image in encoded]
    by_key: dict[tuple, tuple[EncodedImage, int]] = {}
    for rank, images in enumerate(all_gather_object(without_tokens)):
        for image in images:
            by_key.setdefault(image.key, (image, rank))
    gathered = []
    owners = []
    for key in sorted(by_key):
        image, rank = by_key[key]
        gathered.append(image)
        owners.append(rank)
    return gathered, owners


def _cheap_scores(images: Sequence[Any]) -> Tensor:
    """Return the products of the embeddings of images and captions, ``[I, T]``."""
    of_images = torch.cat([image.embedding for image in images])
    of_captions = torch.cat([image.caption_embeddings for image in images])
    return of_images @ of_captions.T


def _best_pairs(cheap: Tensor, k: int) -> Tensor:
    """Return bool ``[I, T]``: the k best captions of each image, and images of each caption."""
    chosen = torch.zeros_like(cheap, dtype=torch.bool)
    for dim in (0, 1):
        count = min(k, cheap.shape[dim])
        best = cheap.topk(count, dim=dim).indices
        chosen.scatter_(dim, best, True)
    return chosen


def encode_captions(model: Any, texts: Sequence[str], size: int) -> list[Tensor]:
    """Encode texts, ``size`` at a time, to tokens ``[L, C]`` each, without padding, on the CPU."""
    ids, padding = model.data_preprocessor.tokenize(list(texts))
    parts = []
    for some_ids, some_padding in zip(
        ids.split(size), padding.split(size), strict=True
    ):
        parts.append(model.encode_texts(some_ids, some_padding))
    tokens = torch.cat(parts).cpu()
    lengths = (~padding).sum(1).tolist()
    captions = []
    for row, length in zip(tokens, lengths, strict=True):
        # A copy, so that the tensor of the batch is freed.
        captions.append(row[:length].clone())
    return captions


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
    lengths = torch.tensor([len(caption) for caption in captions])
    groups = lengths.argsort(stable=True).split(size)
    hidden = None if is_main_process() else True  # None: where there is no terminal
    for columns in tqdm(groups, 'scoring pairs', disable=hidden):
        texts = pad_sequence([captions[i] for i in columns], batch_first=True)
        padding = torch.arange(texts.shape[1]) >= lengths[columns, None]
        padding = padding.to(device)
        texts = texts.to(device)
        for pairs in chosen[:, columns].nonzero().split(size):
            if len(pairs) == 0:
                continue
            image_rows, text_rows = pairs.unbind(dim=1)
            different, image_of_pair = image_rows.unique(return_inverse=True)
            tokens = torch.stack([images[i] for i in different]).to(device)
            text_of_pair = text_rows.to(device)
            pair_scores = model.score_pairs(
                tokens[image_of_pair.to(device)],
                texts[text_of_pair],
                padding[text_of_pair],
            )
            scores[image_rows, columns[text_rows]] = pair_scores.float().cpu()
    return scores


def _coarse_fields(top_k: int = 128) -> dict[str, int]:
    """Return the fields of ``coarse``: its signature names them for the check of a config."""
    return dict(top_k=top_k)


class _RetrievalLoop:
    """Encodes all batches, then scores all pairs: base of validation and test.

    :class:`RetrievalValLoop` describes the arguments.
    """

    #: 'val' or 'test', as in the names of MMEngine's hooks and config fields.
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
        samples = data_batch['data_samples']
        self.runner.call_hook(
            f'before_{self.mode}_iter', batch_idx=idx, data_batch=data_batch
        )
        model = innermost(self.runner.model)
        with autocast(enabled=self.fp16):
            self._encoded += self._encode(model, data_batch['inputs'], samples)
            if idx + 1 == len(self.dataloader):
                scores = score_all_pairs(
                    model, self._encoded, self.pairs_per_batch, **self.coarse
                )
                self._encoded = []
                self.evaluator.process(data_samples=[scores])
        self.runner.call_hook(
            f'after_{self.mode}_iter',
            batch_idx=idx,
            data_batch=data_batch,
            outputs=samples,
        )

    def _encode(
        self, model: Any, inputs: Any, samples: list[VisionLanguageDataSample]
    ) -> list[EncodedImage]:
        """Encode the images of a batch and their captions."""
        images = model.encode_images(model.data_preprocessor.normalize(inputs))
        texts = []
        for sample in samples:
            texts += sample.text
        # As many captions at a time as pairs: an image may have hundreds.
        all_captions = encode_captions(model, texts, self.pairs_per_batch)
        encoded = []
        start = 0
        for sample, tokens in zip(samples, images, strict=True):
            end = start + len(sample.text)
            image = EncodedImage(
                key=(sample.sample_idx, sample.img_path),
                tokens=tokens.clone().cpu(),
                captions=all_captions[start:end],
            )
            start = end
            if self.coarse:
                self._embed(model, tokens, image)
            encoded.append(image)
        return encoded

    def _embed(self, model: Any, tokens: Tensor, image: EncodedImage) -> None:
        """Add the embeddings of an image and its captions."""
        first = torch.stack([caption[0] for caption in image.captions])
        captions = model.head.embed('text', first.to(tokens.device))
        embedding = model.head.embed('image', model.image_token(tokens[None]))
        image.embedding = embedding.cpu()
        image.caption_embeddings = captions.cpu()


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
