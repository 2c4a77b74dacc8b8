"""``MotionForecaster``: encoder, optional language model block, decoder, losses.

The block processes agent and lane tokens with their padding mask, after the encoder
and before the trajectory decoder (arXiv 2310.12973, section 4.3); only the agents
that are decoded are its queries.
"""

import torch
from mmengine.model import BaseModel
from torch import Tensor

from lm4ve.blocks.tokens import take_tokens
from lm4ve.registry import MODELS
from lm4ve.tasks.base.token_neck import build_token_neck
from lm4ve.tasks.motion.models.losses import take_agents


@MODELS.register_module()
class MotionForecaster(BaseModel):
    """A model of trajectories.

    Args:
        encoder (dict): Config of a module ``(inputs) -> dict`` with ``tokens``
            ``[B, N, C]`` (agents first), ``padding_mask`` bool ``[B, N]`` and
            whatever else its decoder needs.
        decoder (dict): Config of a module ``(features [B, Q, C], encoded, inputs) ->
            (trajectories [B, Q, K, F, 2], scores [B, Q, K])``, meters in the focal
            frame and logits, with ``loss(trajectories, scores, future,
            future_valid)``, a dict of scalars, and ``select(trajectories,
            probabilities)``, the final choice of a scene.
        neck (dict, optional): ``LLMBlockNeck``.
        **kwargs: Passed to MMEngine's ``BaseModel``.
    """

    def __init__(
        self, encoder: dict, decoder: dict, neck: dict | None = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = MODELS.build(encoder)
        self.neck = build_token_neck(neck)
        self.decoder = MODELS.build(decoder)

    def forward(
        self,
        inputs: dict[str, Tensor],
        data_samples: list[dict] | None = None,
        mode: str = 'tensor',
    ) -> tuple | dict[str, Tensor] | list:
        """Run on a batch of :func:`lm4ve.tasks.motion.transforms.scenes.collate_scenes`.

        Args:
            inputs (dict[str, Tensor]): As described there.
            data_samples (list[dict]): One a scene.
            mode (str): 'tensor' gives trajectories ``[B, Q, K, F, 2]`` (focal
                frame, meters) and logits ``[B, Q, K]``; 'loss' a dict of losses;
                'predict' the samples with ``trajectories`` (float64
                ``[K, F, 2]``, city coordinates) and ``probabilities``
                (``[K]``) of the focal agent, the most probable first.
        """
        encoded = self.encoder(inputs)
        features = self._query_features(encoded, inputs['queries'])
        trajectories, scores = self.decoder(features, encoded, inputs)
        if mode == 'tensor':
            return trajectories, scores
        if mode == 'loss':
            return self._loss(trajectories, scores, inputs)
        assert data_samples is not None
        return self._predict(trajectories, scores, data_samples)

    def _query_features(self, encoded: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Return the features of the agents that are decoded, ``[B, Q, C]``."""
        tokens = encoded['tokens']
        if self.neck is None:
            return take_tokens(tokens, queries)
        return self.neck(tokens, padding_mask=encoded['padding_mask'], queries=queries)

    def _loss(
        self, trajectories: Tensor, scores: Tensor, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the losses of the agents whose future is known."""
        known = inputs['known_queries']
        if len(known) == 0:
            # A step without any truth: zero, with a path to every parameter.
            return dict(loss=(trajectories.sum() + scores.sum()) * 0.0)
        future = take_agents(inputs['future'], inputs['queries'])
        valid = take_agents(inputs['future_valid'], inputs['queries'])
        return self.decoder.loss(
            trajectories.flatten(0, 1)[known],
            scores.flatten(0, 1)[known],
            future.flatten(0, 1)[known],
            valid.flatten(0, 1)[known],
        )

    def _predict(
        self, trajectories: Tensor, scores: Tensor, data_samples: list[dict]
    ) -> list[dict]:
        """Add the focal agent's forecast to each sample, the most probable line first."""
        # The focal agent is the first; softmax in fp32 also under autocast. What is left
        # is little, and done on the CPU: for each scene a GPU would be waited for.
        focal_trajectories = trajectories[:, 0].float().cpu()
        focal_probabilities = scores[:, 0].float().softmax(dim=-1).cpu()
        results = []
        for i, sample in enumerate(data_samples):
            lines, probabilities = self.decoder.select(
                focal_trajectories[i], focal_probabilities[i]
            )
            order = torch.argsort(probabilities, descending=True, stable=True)
            lines = lines[order].numpy()
            forecast = dict(
                probabilities=probabilities[order].numpy(),
                trajectories=sample['scene'].to_world(lines),
            )
            results.append(sample | forecast)
        return results
