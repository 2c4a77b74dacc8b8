"""Validation and test of retrieval: every image is scored with every caption.

MMEngine's loops hand one batch at a time to the model and the metrics; a recall needs
the scores of pairs across all batches.
"""

from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast

from lm4ve.errors import check
from lm4ve.registry import LOOPS
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.vqa.pair_scores import EncodedImage, score_all_pairs

_DTYPES = {None: None, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


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
        dtype: str | None = None,
        pairs_per_batch: int = 256,
        coarse: dict | None = None,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        field = f'{self.mode}_cfg'
        check(f'{field}.pairs_per_batch', pairs_per_batch, kind=int, least=1)
        check(f'{field}.dtype', dtype, choices=_DTYPES)
        self.coarse = {} if coarse is None else dict(top_k=128, compare=False) | dict(coarse)
        check(f'{field}.coarse.top_k', self.coarse.get('top_k', 1), kind=int, least=1)
        self.pairs_per_batch, self.dtype = pairs_per_batch, _DTYPES[dtype]
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
        with torch.no_grad(), autocast(enabled=self.fp16, dtype=self.dtype):
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
        with autocast(enabled=self.fp16, dtype=self.dtype):
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
        dtype (str, optional): 'float16' or 'bfloat16', instead of what ``fp16`` chooses.
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
