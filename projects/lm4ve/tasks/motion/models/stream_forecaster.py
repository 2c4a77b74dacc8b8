"""``StreamForecaster``: forecasts one sub-scene of a scene after another.

The block processes the tokens of each sub-scene, and what it gives is also what the next
sub-scene reads (PanguMotion, arXiv 2603.16196).
"""

from torch import Tensor

from lm4ve.blocks.tokens import take_tokens
from lm4ve.registry import MODELS
from lm4ve.tasks.motion.models.forecaster import MotionForecaster
from lm4ve.tasks.motion.models.realmotion import SceneMemory


@MODELS.register_module()
class StreamForecaster(MotionForecaster):
    """A model of trajectories that remembers the sub-scenes before.

    Args:
        encoder (dict): Config of a module ``(inputs, memory) -> dict`` with ``tokens``
            ``[B, N, C]`` (agents first) and ``padding_mask`` bool ``[B, N]``; ``memory``
            is a :class:`lm4ve.tasks.motion.models.realmotion.SceneMemory`, or None.
        decoder (dict): Config of a module as of
            :class:`lm4ve.tasks.motion.MotionForecaster` that forecasts the focal agent,
            and has ``loss_of_others(features [B, A, C], inputs)``, a dict of scalars.
        neck (dict, optional): ``LLMBlockNeck``.
        **kwargs: Passed to MMEngine's ``BaseModel``.
    """

    def forward(
        self,
        inputs: dict,
        data_samples: list[dict] | None = None,
        mode: str = 'tensor',
    ) -> tuple | dict[str, Tensor] | list:
        """Run on a batch of :func:`lm4ve.tasks.motion.transforms.sub_scenes.collate_sub_scenes`.

        Args:
            inputs (dict): As described there.
            data_samples (list[dict]): One a scene.
            mode (str): 'tensor' gives the trajectories ``[B, 1, K, F, 2]`` (focal frame,
                meters) of the last sub-scene and logits ``[B, 1, K]``; 'loss' a dict of
                the losses of all sub-scenes; 'predict' as
                :class:`lm4ve.tasks.motion.MotionForecaster`.
        """
        losses = {}
        memory = None
        for step, earlier in enumerate(inputs.get('earlier', [])):
            memory, of_step = self._remember(earlier, memory, mode == 'loss')
            losses.update(_named(of_step, step))
        encoded = self.encoder(inputs, memory)
        if mode == 'loss':
            num_agents = inputs['agents'].shape[1]
            features = self._features(encoded, slice(0, num_agents))
            of_last = self._losses(features, encoded, inputs)
            return losses | _named(of_last, len(inputs.get('earlier', [])))
        features = self._features(encoded, slice(0, 1))
        trajectories, scores = self.decoder(features, encoded, inputs)
        if mode == 'tensor':
            return trajectories, scores
        assert data_samples is not None
        return self._predict(trajectories, scores, data_samples)

    def _remember(
        self, inputs: dict[str, Tensor], memory: SceneMemory | None, trains: bool
    ) -> tuple[SceneMemory, dict[str, Tensor]]:
        """Run on an earlier sub-scene; return what it leaves, and its losses if wanted."""
        encoded = self.encoder(inputs, memory)
        tokens = self._features(encoded, None)
        num_agents = inputs['agents'].shape[1]
        losses = {}
        if trains:
            losses = self._losses(tokens[:, :num_agents], encoded, inputs)
        memory = SceneMemory(
            tokens, encoded['padding_mask'], num_agents, inputs['pose']
        )
        return memory, losses

    def _features(self, encoded: dict[str, Tensor], wanted: slice | None) -> Tensor:
        """Return what the decoder reads of some tokens, or of all, ``[B, Q, C]``."""
        tokens = encoded['tokens']
        if self.neck is None:
            return take_tokens(tokens, wanted)
        return self.neck(tokens, padding_mask=encoded['padding_mask'], queries=wanted)

    def _losses(
        self, features: Tensor, encoded: dict[str, Tensor], inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the losses of a sub-scene from the features of its agents."""
        losses = self.decoder.loss_of_others(features, inputs)
        trajectories, scores = self.decoder(features, encoded, inputs)
        return losses | self._loss(trajectories, scores, inputs)


def _named(losses: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """Name the losses of a sub-scene by its number."""
    return {f'step{step}.{name}': loss for name, loss in losses.items()}
