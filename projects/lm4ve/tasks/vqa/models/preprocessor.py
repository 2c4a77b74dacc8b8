"""``VisionLanguagePreprocessor``: images and texts of a batch on their way into METER."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lm4ve.errors import require
from lm4ve.registry import MODELS
from lm4ve.text.preprocessor import TextPreprocessor


@MODELS.register_module()
class VisionLanguagePreprocessor(TextPreprocessor):
    """Turn a batch of images and texts into tensors on the model's device.

    Args:
        tokenizer (str): Where the tokenizer's files are: a local folder,
            ``package:<name>`` or a hub id.
        max_length (int): Tokens of a text, special ones included. A longer text is cut
            and keeps its last special token; the log says so once.
        mean, std (Sequence[float]): Of the three channels, from 0 to 255; default:
            CLIP's.
        to_rgb (bool): The images come as BGR and the encoder wants RGB.
        non_blocking (bool): Passed to MMEngine's ``BaseDataPreprocessor``.

    Attributes:
        num_truncated (int): How many texts this process has cut.

    Raises:
        CheckpointError: The tokenizer's files are missing or damaged.
        UserError: ``max_length`` has no room for a word.
    """

    def __init__(
        self,
        tokenizer: str,
        max_length: int = 50,
        mean: Sequence[float] = (122.771, 116.746, 104.094),
        std: Sequence[float] = (68.501, 66.632, 70.323),
        to_rgb: bool = True,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(tokenizer, max_length, non_blocking)
        self.to_rgb = to_rgb
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalize and tokenize a batch.

        Args:
            data (dict): ``inputs``, a list of uint8 ``[3, H, W]`` (or ``[B, 3, H,
                W]``), and ``data_samples``, whose ``text`` are as many strings in each.
            training (bool): Not used.

        Returns:
            dict: ``inputs`` with ``image`` float ``[B, 3, H, W]``, ``input_ids`` int64
            ``[B, S, L]`` and ``text_padding`` bool ``[B, S, L]`` (True = padding), L
            the longest text of the batch; ``data_samples`` as they came.

        Raises:
            UserError: Numbers of texts differ.
        """
        data = self.cast_data(data)
        samples = data['data_samples']
        count = len(samples[0].text)
        texts = []
        for sample in samples:
            require(
                len(sample.text) == count,
                f'a sample of this batch has {len(sample.text)} texts, the first one '
                f'{count}. Fix: test all captions with lm4ve.RetrievalValLoop.',
            )
            texts += sample.text
        ids, padding = self.tokenize(texts)
        shape = (len(samples), count)
        inputs = dict(
            image=self.normalize(data['inputs']),
            input_ids=ids.unflatten(0, shape),
            text_padding=padding.unflatten(0, shape),
        )
        return dict(inputs=inputs, data_samples=samples)

    def normalize(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Stack images, order their channels, take off the mean, divide by the deviation.

        Args:
            images (Tensor | Sequence[Tensor]): uint8 ``[3, H, W]`` each, from 0 to 255.

        Returns:
            Tensor: float ``[B, 3, H, W]`` on the model's device.
        """
        if not isinstance(images, Tensor):
            images = torch.stack(list(images))
        images = images.to(self.mean.device, non_blocking=True)
        if self.to_rgb:
            images = images.flip(1)
        return (images.float() - self.mean) / self.std
