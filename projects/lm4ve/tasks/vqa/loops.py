"""Validation and test of retrieval: every image is scored with every caption.

MMEngine's loops give one batch at a time to the model and the metrics; a recall needs
the scores of pairs across all batches. The encoders run once an image and once a
caption; a pair then costs its fusion only. Tokens wait in the memory of the host. A
process encodes its own images and all captions, and scores its images with all
captions.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from lm4ve.errors import check, require
from lm4ve.registry import LOOPS
from lm4ve.runner.same_data import innermost
from lm4ve.text.structures import VisionLanguageDataSample


@dataclass
class EncodedImage:
    """An image and its S captions after the encoders, on the CPU.

    Attributes:
        key (tuple): The same in all processes; its order is that of the data set.
        batch (int): The number of its batch in its process.
        tokens (Tensor, optional): ``[N, C]``; None for an image of another process.
        texts (list[str]): The captions.
        captions (list[Tensor]): Tokens ``[L, C]`` of each caption, without padding; []
            before :func:`add_captions`.
    """

    key: tuple
    batch: int
    tokens: Tensor | None
    texts: list[str]
    captions: list[Tensor] = field(default_factory=list)


def score_all_pairs(
    model: nn.Module, encoded: Sequence[EncodedImage], pairs_per_batch: int
) -> dict[str, Any]:
    """Score all pairs of images and captions of all processes. All of them have to call it.

    Args:
        model (nn.Module): Has ``score_pairs``.
        encoded (Sequence[EncodedImage]): Of this process. Samplers give some images to
            two processes, so that all have equally many; these count once.
        pairs_per_batch (int): How many pairs are fused at a time, at most.

    Returns:
        dict: The same in every process, in the order of the data set: ``scores`` fp32
        ``[I, T]``, and ``image_of_caption`` int64 ``[T]``.
    """
    images, owners = _gather_images(model, encoded, pairs_per_batch)
    captions = []
    image_of_caption = []
    for number, image in enumerate(images):
        captions += image.captions
        image_of_caption += [number] * len(image.captions)

    tokens: dict[tuple, Any] = {image.key: image.tokens for image in encoded}
    own = [number for number, rank in enumerate(owners) if rank == get_rank()]
    own_tokens = [tokens[images[number].key] for number in own]
    own_scores = score_images(model, own_tokens, captions, pairs_per_batch)
    scores = torch.zeros(len(images), len(captions))
    for rows, row_scores in all_gather_object((own, own_scores)):
        scores[rows] = row_scores
    return dict(scores=scores, image_of_caption=torch.tensor(image_of_caption))


def _gather_images(
    model: nn.Module, encoded: Sequence[EncodedImage], size: int
) -> tuple[list[EncodedImage], list[int]]:
    """Gather the images of all processes, with their captions and without their own tokens.

    Processes send each other texts and encode them once more. The tokens of COCO's
    captions are 3 GB, which NCCL would gather in the memory of each GPU.

    Returns:
        tuple[list[EncodedImage], list[int]]: The images in the order of the data set,
        and the process that scores each, the first of those that have it.
    """
    to_send = []
    for image in encoded:
        to_send.append(replace(image, tokens=None, captions=[]))
    by_key: dict[tuple, tuple[EncodedImage, int]] = {}
    for rank, sent in enumerate(all_gather_object(to_send)):
        images = sent
        if rank == get_rank():
            images = encoded
        else:
            # In the batches of their process, for the same bits.
            for _, batch in itertools.groupby(images, attrgetter('batch')):
                add_captions(model, list(batch), size)
        for image in images:
            by_key.setdefault(image.key, (image, rank))
    gathered = []
    owners = []
    for key in sorted(by_key):
        image, rank = by_key[key]
        gathered.append(image)
        owners.append(rank)
    return gathered, owners


def add_captions(model: Any, images: Sequence[EncodedImage], size: int) -> None:
    """Encode the captions of a batch of images, ``size`` at a time, and set their tokens."""
    texts = []
    for image in images:
        texts += image.texts
    captions = encode_captions(model, texts, size)
    start = 0
    for image in images:
        end = start + len(image.texts)
        image.captions = captions[start:end]
        start = end


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


def score_images(
    model: Any, images: list[Tensor], captions: Sequence[Tensor], size: int
) -> Tensor:
    """Return the scores of all images with all captions, fp32 ``[I, T]`` on the CPU.

    Captions of similar lengths come together, so that few of their tokens are padding.

    Args:
        model (nn.Module): Has ``score_pairs``.
        images (list[Tensor]): I times tokens ``[N, C]``.
        captions (Sequence[Tensor]): T times tokens ``[L, C]``, without padding.
        size (int): How many pairs are fused at a time, at most.
    """
    device = next(model.parameters()).device
    scores = torch.zeros(len(images), len(captions))
    lengths = torch.tensor([len(caption) for caption in captions])
    groups = lengths.argsort(stable=True).split(size)
    hidden = None if is_main_process() else True  # None: where there is no terminal
    for columns in tqdm(groups, 'scoring pairs', disable=hidden):
        texts = pad_sequence([captions[i] for i in columns], batch_first=True)
        padding = torch.arange(texts.shape[1]) >= lengths[columns, None]
        padding = padding.to(device, non_blocking=True)
        texts = texts.to(device, non_blocking=True)
        # They stay on the device, so that it is waited for once for all images.
        group_scores = torch.empty(len(images), len(columns), device=device)
        images_at_once = size // len(columns)
        for start in range(0, len(images), images_at_once):
            end = start + images_at_once
            tokens = torch.stack(images[start:end])
            tokens = tokens.to(device, non_blocking=True)
            count = len(tokens)
            pair_scores = model.score_pairs(
                tokens.repeat_interleave(len(columns), dim=0),
                texts.repeat(count, 1, 1),
                padding.repeat(count, 1),
            )
            group_scores[start:end] = pair_scores.unflatten(0, (count, len(columns)))
        scores[:, columns] = group_scores.cpu()
    return scores


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

    def __init__(self, *args: Any, pairs_per_batch: int = 256, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = f'{self.mode}_cfg'
        check(f'{field}.pairs_per_batch', pairs_per_batch, kind=int, least=1)
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
            self._encoded += self._encode(model, data_batch['inputs'], samples, idx)
            if idx + 1 == len(self.dataloader):
                scores = score_all_pairs(model, self._encoded, self.pairs_per_batch)
                self._encoded = []
                self.evaluator.process(data_samples=[scores])
        self.runner.call_hook(
            f'after_{self.mode}_iter',
            batch_idx=idx,
            data_batch=data_batch,
            outputs=samples,
        )

    def _encode(
        self,
        model: Any,
        inputs: Any,
        samples: list[VisionLanguageDataSample],
        batch: int,
    ) -> list[EncodedImage]:
        """Encode the images of a batch and their captions."""
        images = model.encode_images(model.data_preprocessor.normalize(inputs))
        encoded = []
        for sample, tokens in zip(samples, images.cpu(), strict=True):
            # A copy, so that the tensor of the batch is freed.
            image = EncodedImage(
                key=(sample.sample_idx, sample.img_path),
                batch=batch,
                tokens=tokens.clone(),
                texts=list(sample.text),
            )
            encoded.append(image)
        # As many captions at a time as pairs: an image may have hundreds.
        add_captions(model, encoded, self.pairs_per_batch)
        return encoded


@LOOPS.register_module()
class RetrievalValLoop(_RetrievalLoop, ValLoop):
    """Validation of retrieval: all pairs of images and captions.

    A process encodes its images and all captions, and scores its images with all
    captions. Tokens wait in the host's memory: a process holds those of all captions
    (for COCO's 25,000 with up to 40 tokens of 768 channels about 3 GB in fp32, half of
    it with ``fp16``) and of its own images. Processes send each other texts and scores.

    Args:
        runner, dataloader, evaluator: As for MMEngine's ``ValLoop``. The data set is in
            test mode: a sample is an image with all of its captions.
        fp16 (bool): Mixed precision, in fp16 on a GPU and in bf16 on a CPU.
        pairs_per_batch (int): How many pairs are fused at a time, at most.

    Raises:
        UserError: An argument is wrong, or the data set is one of single captions.
    """

    mode = 'val'


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop, TestLoop):
    """Test retrieval as :class:`RetrievalValLoop` validates it, with the same arguments."""

    mode = 'test'
