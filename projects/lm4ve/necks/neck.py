"""``LLMBlockNeck``: linear mapper, block, linear mapper, norm, for any feature layout.

The paper's place for it is after an encoder's last block and before its final norm
(arXiv 2310.12973, section 3.1), so the host's backbone gives raw tokens
(``out_type='raw', final_norm=False``) and the neck applies the norm.

A forward pass has five steps, each in a file of its own:

    reader.py     features in any layout -> tokens [B, N, C]
    readout.py    which tokens does the host read?
    path.py       mapper [B, N, D], block, mapper [B, Q, C], residuals
    readout.py    norm, and class token or mean
    reader.py     tokens -> the layout that they came in

``running.py`` runs the path, and recomputes it if asked. Parts (``parts/``) change what it
computes, and run around it. ``fields.py`` refuses fields that do not go together,
``interface.py`` is what others read of a neck, ``lm4ve/blocks/record.py`` what a checkpoint says.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve import compat
from lm4ve.blocks.low_rank.choice import are_all_modules_hooked, is_plain
from lm4ve.blocks.old_records import upgrade_neck
from lm4ve.blocks.record import Recorded
from lm4ve.blocks.record_text import KEY
from lm4ve.blocks.removed import refuses_removed
from lm4ve.blocks.tokens import Queries
from lm4ve.errors import CheckpointError, UserError, refuse_unknown, require
from lm4ve.necks.fields import NeckFields
from lm4ve.necks.interface import NeckInterface
from lm4ve.necks.norms import (
    build_norm,
    describe_norm,
    is_over_tokens,
    normalize,
    refuse_norm_of_padding,
)
from lm4ve.necks.parts.branch import Branch, parse_branch
from lm4ve.necks.parts.gate import build_gate, open_gate
from lm4ve.necks.parts.mappers import parse_mapper
from lm4ve.necks.parts.part import Part, Request, Run, Step
from lm4ve.necks.parts.shuffle import TokenShuffle
from lm4ve.necks.path import PathParts, has_outer_residual
from lm4ve.necks.reader import FeatureReader, Features
from lm4ve.necks.readout import build_readout
from lm4ve.necks.running import RunsPath

_INIT = dict(type='TruncNormal', layer='Linear', std=0.02)


@MODELS.register_module()
class LLMBlockNeck(NeckInterface, Recorded, RunsPath):
    """``x -> mapper_in: Linear(C, D) -> block -> mapper_out: Linear(D, C) -> norm``.

    Args:
        in_channels (int): C, the backbone's width.
        block (dict | nn.Module): Config of :class:`lm4ve.blocks.LLMBlock`,
            :class:`lm4ve.blocks.MLPBlock`, or any module with ``embed_dims``
            and their ``forward(x, padding_mask, queries)``.
        norm_cfg (dict, optional): The encoder's final norm, which comes after the block
            and acts on the channels in every layout: 'LN', 'LN2d' (the same here),
            'RMSNorm', 'GN', 'BN', 'BN1d', 'BN2d', 'BN3d' or 'SyncBN', and its
            arguments. None: no norm.
        norm_first (bool): Let 'avg_featmap' normalize each token, then average, as some
            hosts do.
        residual (str): 'none' as in the paper; 'inner' adds the block's input
            to its output (in D), 'outer' the neck's input to the second
            mapper's output (in C, before the norm), 'both' does both (the
            variants of arXiv 2403.17343).
        out_type (str): 'raw' returns all tokens in the layout of the input;
            'cls_token' returns ``[B, C]``, token 0, and computes only it;
            'avg_featmap' returns ``[B, C]``, the norm of the mean over tokens
            (VideoMAE's ``fc_norm``).
        low_rank (str): How the rank C of the block's input is used to save
            computation (see ``lm4ve/blocks/low_rank``): 'absorb', 'fold',
            'off', or 'auto', which picks the one that pays for each batch. All give
            the same result. Where something acts on the
            mapper, the norm or the projections (an adapter, a hook, a bias, a
            quantization), they are called as modules, as with 'off'.
        with_cp (bool): Recompute mappers and block in the backward pass, store no
            activations.
        layout (str, optional): What the dimensions of the features are, a letter for
            each: B samples, C channels, any others tokens. Default: 'BNC', 'BCHW' or
            'BCTHW' by their number. Other encoders return 'BCN', 'BHWC' or, within
            CLIP's transformers, 'NBC'. It is asked for where the first features fit
            several.
        num_extra_tokens (int): How many class and register tokens come first, which
            'avg_featmap' leaves out of its mean (as MAE, BEiT and EVA-02 do).
        index (int): Which entry of a sequence of features the neck takes.
        keep_others (bool): Return a sequence of the same length with that entry
            replaced, for modules that read several maps (FPN, TPN, UPerHead).
        branch (bool | dict, optional): Make the block a branch beside the identity in
            training and leave it out in evaluation. A dict has the fields of
            :class:`lm4ve.necks.parts.branch.TrainBranch`.
        guard (bool): Let ``lm4ve.BlockInUseHook`` end a training in whose first
            iteration the block does not run or gets no gradient. False for models that
            skip it in some steps.
        mapper (dict, optional): Bias, depth and activations of the mappers: see
            :class:`lm4ve.necks.parts.mappers.Mappers`.
        lora (dict, optional): Freeze the mappers, and train LoRA on them: see
            :class:`lm4ve.blocks.adapters.LoRA`. MedVisionLlama has ``r=4, alpha=1``.
        gate (bool | str): Multiply the block's branch beside an 'inner' or 'outer'
            residual by a scalar that is zero at first (ReZero), with 'tanh' by its tanh
            (Flamingo).
        shuffle_tokens (bool): A control: the block reads a sample's tokens in random
            order.
        init_cfg (dict | list, optional): How the mappers, never the block, are
            initialized. Default: a truncated normal distribution with a standard
            deviation of 0.02 and biases of zero, as in the released ViTs;
            ``dict(type='lm4ve.TorchDefault', layer='Linear')``: as torch makes them, as
            in the other releases (:class:`lm4ve.necks.initializers.TorchDefault`).

    Raises:
        UserError: An argument is not one of those above.
    """

    record_prefix = 'model.neck.'
    known_fields = ('num_extra_tokens', 'norm_first', 'block.num_heads', 'place')

    block: Any
    mapper_in: Any
    mapper_out: Any
    norm: nn.Module | None
    gate: nn.Parameter | None
    skip: Any

    @refuses_removed('neck')
    def __init__(
        self,
        in_channels: int,
        block: dict[str, Any] | nn.Module,
        norm_cfg: dict[str, Any] | None = dict(type='LN', eps=1e-6),
        residual: str = 'none',
        out_type: str = 'raw',
        low_rank: str = 'auto',
        with_cp: bool = False,
        layout: str | None = None,
        num_extra_tokens: int = 0,
        index: int = -1,
        keep_others: bool = False,
        branch: bool | dict[str, Any] | None = None,
        guard: bool = True,
        norm_first: bool = False,
        init_cfg: dict[str, Any] | Sequence[dict[str, Any]] | None = _INIT,
        mapper: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        gate: bool | str = False,
        shuffle_tokens: bool = False,
    ) -> None:
        super().__init__(with_cp, init_cfg)
        self.fields = NeckFields(
            in_channels=in_channels,
            residual=residual,
            out_type=out_type,
            low_rank=low_rank,
            layout=layout,
            num_extra_tokens=num_extra_tokens,
            index=index,
            keep_others=keep_others,
            norm_first=norm_first,
            branch=parse_branch(branch),
            mapper=parse_mapper(mapper),
            gate=gate,
            shuffle_tokens=shuffle_tokens,
        )
        self.residual = residual
        self.low_rank = low_rank
        self.guard = guard

        # The paper: mapper, block, mapper, norm.
        if not isinstance(block, nn.Module):
            # A config: the model is one of MMEngine's registries. lm4ve.wrap gives a module.
            compat.activate()
            block = build_block(block)
        self.block = block
        self.fields.check_block(self.block)
        width = self.block.embed_dims
        self.mapper_in = nn.Linear(in_channels, width, bias=False)
        self.mapper_out = nn.Linear(width, in_channels, bias=False)
        self.norm = build_norm(norm_cfg, in_channels)
        # Others may wrap the norm, and then its class no longer shows this.
        self._built_norm_is_over_tokens = is_over_tokens(self.norm)
        self._built_norm = describe_norm(self.norm)

        # What later papers add to these, or put in their place.
        self.gate = build_gate(self.fields.gate_form)
        self.skip = None
        if self.fields.mapper is not None:
            self.mapper_in = self.fields.mapper.build_in(in_channels, width)
            self.mapper_out = self.fields.mapper.build_out(in_channels, width)
            self.skip = self.fields.mapper.build_skip(in_channels)
        self._mapper_lora: dict[str, Any] | None = None
        if lora is not None:
            self._adapt_mappers(lora)
        #: Where ``LLMBlockInsert`` has put the neck, for checkpoints.
        self.place: str | None = None
        self._part_names: list[str] = []
        for name, part in build_parts(self.fields).items():
            self.add_part(name, part)

        self.reader = FeatureReader(in_channels, layout, index, keep_others)
        self.readout = build_readout(self.fields)

    # ------------------------------------------------------------------ forward
    def forward(
        self,
        feats: Tensor | Sequence[Tensor],
        padding_mask: Tensor | None = None,
        queries: Queries = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run the neck.

        Args:
            feats (Tensor | Sequence[Tensor]): Features, or a sequence of which
                :attr:`index` is used: tokens, an image map or a clip map, in
                :attr:`layout`.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
            queries (slice | Tensor, optional): The tokens to compute (see
                :class:`lm4ve.blocks.LLMBlock`); only for token features with
                ``out_type='raw'``.

        Returns:
            Tensor | tuple[Tensor]: A tuple if ``feats`` was a sequence, of one unless
            :attr:`keep_others`. 'raw' keeps the layout (or ``[B, Q, C]``), else ``[B,
            C]``.

        Raises:
            UserError: Another width, an unknown layout, or a norm that would count
                padding in.
        """
        features = self.reader.read(feats)
        self._check_call(features, padding_mask, queries)
        request = Request(
            tokens=features.tokens,
            padding_mask=padding_mask,
            queries=self.readout.select(queries),
            read_mask=padding_mask,
        )
        # A plain neck has no parts. Of several, each sees the request as the one before
        # it left it, and the last one is the outermost around the path.
        step = Step(self.training, self._observed, self.parameters)
        for part in self.parts:
            request = part.before(request, step)
        run: Run = self.run
        for part in self.parts:
            run = partial(part.around, run, step)
        computed = run(request)

        read_mask = request.read_mask
        if self._averages_before_mapper():
            read_mask = None  # of each sample one mean
        out = self.readout.after(computed, read_mask, self.normalize)
        return self.reader.write(out, features, feats)

    def path_parts(self) -> PathParts:
        """Return the modules of the path, as they are now."""
        return PathParts(
            mapper_in=self.mapper_in,
            block=self.block,
            mapper_out=self.mapper_out,
            residual=self.residual,
            skip=self.skip,
            gate=open_gate(self.gate, self.fields.gate_form),
            low_rank=self.low_rank,
            averages=self._averages_before_mapper(),
        )

    def _averages_before_mapper(self) -> bool:
        """Return whether the mean over tokens may be taken before the second mapper.

        A linear mapper of the mean is the mean of the mapped tokens. That does not hold
        if the norm or an outer residual comes before the mean, or if something else
        acts on the mapper. Who observes the path expects all tokens.
        """
        fields = self.fields
        if fields.out_type != 'avg_featmap' or fields.norm_first or self._observed:
            return False
        # Parts change which tokens the readout averages, or what stands beside them.
        if self.parts or has_outer_residual(self.residual):
            return False
        return is_plain(self.mapper_out, nn.Linear) and not are_all_modules_hooked()

    def normalize(self, x: Tensor) -> Tensor:
        """Apply the norm to the channels of ``[B, Q, C]`` or ``[B, C]``."""
        return normalize(x, self.norm, self._norm_is_over_tokens())

    def _norm_is_over_tokens(self) -> bool:
        """Return whether the norm's statistics are over tokens, not over a token's channels."""
        return is_over_tokens(self.norm, self._built_norm_is_over_tokens)

    def _check_call(
        self, features: Features, padding_mask: Tensor | None, queries: Queries
    ) -> None:
        """Refuse features, padding or queries that the fields do not go with.

        A training step without gradients may be a calibration, so it is not refused
        here: the optimizer's first step raises if the mappers have got no gradient.
        """
        if self.training and self.guard and not torch.is_grad_enabled():
            self._expect_gradient()
        self._check_extra_tokens(features.tokens.shape[1])
        if padding_mask is not None and self.readout.norms_padding(queries):
            refuse_norm_of_padding(self.norm, self._norm_is_over_tokens())
        self.readout.check_request(queries, features.is_map)

    def _expect_gradient(self) -> None:
        """Let the first step of an optimizer raise if the mappers have got no gradient."""
        if torch.compiler.is_compiling():
            return
        from lm4ve.necks.usage import expect_gradient

        expect_gradient(self)

    def _check_extra_tokens(self, count: int) -> None:
        """Refuse more class and register tokens than there are tokens.

        Args:
            count (int): N, with them.

        Raises:
            UserError: There are fewer, or none is left to average.
        """
        extra = self.num_extra_tokens
        if extra == 0:
            return
        needed = extra
        if self.averages_tokens:
            needed = extra + 1
        if count < needed:
            raise UserError(
                f'neck.num_extra_tokens={extra}, but the encoder gives {count} tokens, '
                'class and register tokens among them. Fix: how many of those it has.'
            )

    # -------------------------------------------------------------------- parts
    def add_part(self, name: str, part: Part) -> None:
        """Add a variant after those that the neck has.

        Args:
            name (str): The neck's attribute for it, under which a checkpoint has its
                tensors.
            part (Part): The variant.
        """
        setattr(self, name, part)
        self._part_names.append(name)

    @property
    def parts(self) -> list[Part]:
        """The variants in the order in which they act."""
        # By name: in a replica of DataParallel these are other modules.
        return [getattr(self, name) for name in self._part_names]

    def _adapt_mappers(self, fields: dict[str, Any]) -> None:
        """Freeze the mappers' weights, and put LoRA on the mappers.

        Args:
            fields (dict): The neck's argument ``lora``.
        """
        from lm4ve.necks.parts.lora import adapt_mappers

        mapper_in, mapper_out, record = adapt_mappers(
            fields, self.mapper_in, self.mapper_out
        )
        self.mapper_in = mapper_in
        self.mapper_out = mapper_out
        self._mapper_lora = record

    # -------------------------------------------------------------- checkpoints
    def record(self) -> dict[str, Any]:
        """Return the settings that a checkpoint records, beside the neck's tensors."""
        record = self.fields.record()
        record['residual'] = self.residual  # lm4ve.fuse replaces it
        # Of the config, whatever norm stands there now.
        record['norm_cfg'] = self._built_norm
        record['lora'] = self._mapper_lora
        heads = getattr(self.block, 'num_heads', None)
        if heads is not None:  # of a control
            record['block.num_heads'] = heads
        if self.place is not None:
            record['place'] = self.place
        for part in self.parts:
            part.add_to(record)
        return record

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """Load, but refuse the neck of another kind, even where loading is not strict.

        Raises:
            CheckpointError: The state was made with another :meth:`record`, or with
                another kind of block.
        """
        upgrade_neck(state_dict, prefix)
        self._check_kind_of_block(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def accept_record(self, state: dict[str, Any], prefix: str) -> None:
        """Change a state so that it loads despite other settings or another kind of block.

        Args:
            state (dict): Changed in place.
            prefix (str): The neck's name in it, with a dot.
        """
        upgrade_neck(state, prefix)
        super().accept_record(state, prefix)
        if not self._block_records():
            state.pop(f'{prefix}block.{KEY}', None)

    def _block_records(self) -> bool:
        """Return whether the block writes a record, as all with frozen weights do."""
        return type(self.block).get_extra_state is not nn.Module.get_extra_state

    def _check_kind_of_block(self, state: Mapping[str, Any], prefix: str) -> None:
        """Refuse a state that was saved with a frozen block for a neck without, or the reverse.

        A state without the first mapper is not a neck's own, for example one of adapters
        alone, and passes.

        Args:
            state (dict): The state.
            prefix (str): The neck's name in it, with a dot.

        Raises:
            CheckpointError: The state has a record of frozen weights, and the block is
                of another class; or the block has frozen weights, and the state has no
                record of them.
        """
        mapper_keys = [
            f'{prefix}mapper_in.{key}' for key in self.mapper_in.state_dict()
        ]
        is_state_of_neck = bool(mapper_keys) and all(
            key in state for key in mapper_keys
        )
        if not is_state_of_neck:
            return
        key = f'{prefix}block.{KEY}'
        is_recorded = key in state
        expects_record = self._block_records()
        if is_recorded == expects_record:
            return
        verb = 'lacks' if expects_record else 'has'
        raise CheckpointError(
            f"The checkpoint {verb} '{key}', the record of frozen weights, but "
            f'model.neck.block of the config is a {type(self.block).__name__}.'
        )


def build_block(config: Mapping[str, Any]) -> Any:
    """Build a neck's block.

    Args:
        config (Mapping): Its ``type`` and arguments.

    Raises:
        UserError: There is no type, or it does not take an argument.
    """
    fields = dict(config)
    kind = fields.pop('type', None)
    require(
        kind is not None, "block has no type. Fix: block=dict(type='LLMBlock', ...)."
    )
    fields.pop('_scope_', None)
    if isinstance(kind, str):
        kind = MODELS.get(kind)
    if kind is not None:
        refuse_unknown(kind, fields, 'block')
    return MODELS.build(config)


def build_parts(fields: NeckFields) -> dict[str, Part]:
    """Build the variants that a neck's fields name.

    Args:
        fields (NeckFields): The neck's fields.

    Returns:
        dict[str, Part]: The parts by their names in the neck, in the order in which
        they act: a part is run around those before it.
    """
    parts: dict[str, Part] = {}
    if fields.shuffle_tokens:
        parts['shuffle'] = TokenShuffle(fields.leading_tokens)
    if fields.branch is not None:
        parts['branch'] = Branch(fields.branch)
    return parts
