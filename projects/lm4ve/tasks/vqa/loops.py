"""Validation and test of retrieval: every image is scored with every caption.

MMEngine's loops hand one batch at a time to the model and the metrics; a recall needs
the scores of pairs across all batches.
"""

from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import nn

from lm4ve.errors import UserError, did_you_mean
from lm4ve.registry import LOOPS
from lm4ve.tasks.vqa.pair_scores import Encoded, score_all_pairs

_COARSE = dict(top_k=128, compare=False)
_DTYPES = {None: None, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
_SHARDED = ('FullyShardedDataParallel', 'FSDPModule', 'MMDeepSpeedEngineWrapper')


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
        if not isinstance(pairs_per_batch, int) or pairs_per_batch < 1:
            raise UserError(f'{field}.pairs_per_batch={pairs_per_batch!r} must be 1 or more.')
        if dtype not in _DTYPES:
            raise UserError(f"{field}.dtype={dtype!r} must be 'float16', 'bfloat16' or None.")
        if unknown := [k for k in coarse or {} if k not in _COARSE]:
            raise UserError(
                f'{field}.coarse has no field {unknown[0]!r}.{did_you_mean(unknown[0], _COARSE)} '
                f'It has {", ".join(_COARSE)}.'
            )
        self.coarse = None if coarse is None else _COARSE | dict(coarse)
        if self.coarse and (not isinstance(self.coarse['top_k'], int) or self.coarse['top_k'] < 1):
            raise UserError(f'{field}.coarse.top_k={self.coarse["top_k"]!r} must be 1 or more.')
        self.pairs_per_batch, self.dtype = pairs_per_batch, _DTYPES[dtype]
        if not getattr(self.dataloader.dataset, 'test_mode', True):
            raise UserError(
                f'{self.mode}_dataloader.dataset has test_mode=False: its samples are single '
                'captions with false ones. Fix: set test_mode=True.'
            )

    def run(self) -> dict:
        """Encode, score all pairs, evaluate.

        Returns:
            dict: The metrics.
        """
        hook = self.runner.call_hook
        hook(f'before_{self.mode}')
        hook(f'before_{self.mode}_epoch')
        self.runner.model.eval()
        self._model = _bare(self.runner.model)
        self._encoded = Encoded()
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        self.evaluator.process(data_samples=[self._score()])
        del self._encoded
        metrics = self.evaluator.evaluate(1)
        hook(f'after_{self.mode}_epoch', metrics=metrics)
        hook(f'after_{self.mode}')
        return metrics

    def _autocast(self) -> Any:
        return autocast(enabled=self.fp16, dtype=self.dtype)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Encode the images of a batch and their captions."""
        hook = self.runner.call_hook
        hook(f'before_{self.mode}_iter', batch_idx=idx, data_batch=data_batch)
        with self._autocast():
            self._encode(data_batch)
        samples = data_batch['data_samples']
        hook(f'after_{self.mode}_iter', batch_idx=idx, data_batch=data_batch, outputs=samples)

    def _encode(self, batch: dict) -> None:
        model, found = self._model, self._encoded
        samples = batch['data_samples']
        counts = [len(s.text) for s in samples]
        images = model.encode_images(model.data_preprocessor.normalize(batch['inputs']))
        ids, padding = model.data_preprocessor.tokenize([t for s in samples for t in s.text])
        tokens, lengths = [], []
        # As many captions at a time as pairs: an image may have hundreds.
        for some, mask in zip(
            ids.split(self.pairs_per_batch), padding.split(self.pairs_per_batch), strict=True
        ):
            tokens.append(model.encode_texts(some, mask))
            lengths += (~mask).sum(1).tolist()
        if self.coarse:
            found.image_embeddings += model.embed_images(images).float().cpu()
            embedded = torch.cat([model.embed_texts(t) for t in tokens]).float().cpu()
            found.text_embeddings += embedded.split(counts)
        # Copies without padding: the tensors of the batch are freed.
        rows = [t[:n].clone() for t, n in zip(torch.cat(tokens).cpu(), lengths, strict=True)]
        found.images += [i.clone() for i in images.cpu()]
        for sample, count in zip(samples, counts, strict=True):
            found.texts.append(rows[:count])
            rows = rows[count:]
            found.keys.append((sample.sample_idx, sample.img_path))
            known = ('img_path', 'image_id', 'caption_ids', 'text')
            found.notes.append({k: sample.get(k) for k in known})

    @torch.no_grad()
    def _score(self) -> dict:
        with self._autocast():
            found = score_all_pairs(
                self._model, self._encoded, self.pairs_per_batch, **(self.coarse or {})
            )
        sample = dict(scores=found.scores, image_of_caption=found.image_of_caption)
        if found.exact is not None:
            sample['exact_scores'] = found.exact
        return dict(sample, images=found.notes)


def _bare(model: nn.Module) -> nn.Module:
    """Return the model inside of its wrappers, if it can score pairs."""
    while is_model_wrapper(model):
        if any(k.__name__ in _SHARDED for k in type(model).__mro__):
            raise UserError(
                'The retrieval loops cannot score with a model in shards (FSDP, DeepSpeed). Fix: '
                'test its checkpoint with model_wrapper_cfg=None.'
            )
        model = model.module
    if not hasattr(model, 'score_pairs'):
        raise UserError(
            f'The retrieval loops need a model that scores pairs, such as lm4ve.METER, not '
            f"{type(model).__name__}. Fix: set val_cfg and test_cfg to MMEngine's loops."
        )
    return model


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
        UserError: An argument is wrong; the data set is one of single captions; the
            model cannot score pairs, or not in shards.
    """

    mode = 'val'


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop, TestLoop):
    """Test retrieval as :class:`RetrievalValLoop` validates it, with the same arguments."""

    mode = 'test'
