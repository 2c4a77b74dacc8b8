"""Keep what was folded of weights until one of them changes, and pay little to know.

A write through ``.data``, into numpy's view of a weight or by a kernel of somebody else
leaves no mark on a tensor but its values, and to read all values of a language model's
projections costs a quarter of a small batch. So three things are told apart:

*Marks* cost nothing: another tensor, storage, type or device, another count of writes, a
step of any optimizer, a mode that was set, a forward pass with gradients.

*The mapper and the norms*, which training, averages and checkpoints change, are looked at
in full at every use. Their products with a fixed random vector are compared: a changed
value that the products do not show is below their rounding (1e-7 of a row), as its effect is.

*The projections* are multiplied so as well, at every use half a megabyte of each, in
rows that are spread over the matrix. A write that leaves no mark is seen at once if it reaches
as many neighboring rows as there are such pieces (128 of 4096 in LLaMA-7B), or parts of all
rows. A smaller one is seen after at most as many uses. Where a mark says that somebody
wrote, all rows are compared at once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer

# Remembers what depends on weights alone: ``(name, make) -> make()``.
Remember = Callable[[str, Callable[[], Tensor]], Tensor]


class FoldMemory:
    """Keeps, in evaluation, what depends on weights alone until one changes.

    While gradients are recorded nothing is kept, and :meth:`clear` is called whenever
    evaluation or training begins. Weights are compared at every look-up, as the text at the
    top of this file says, and with one wait for a GPU.
    """

    #: Bytes of a projection that a look-up compares.
    PIECE = 1 << 19

    def __init__(self) -> None:
        self._pinned = False
        self.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FoldMemory':
        return type(self)()  # a copy (EMA) has a mapper of its own

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def clear(self) -> None:
        """Forget everything."""
        self._held: dict[str, list[_Held]] = {}
        self._values: dict[str, Tensor] = {}
        self._uses = 0
        self._steps = _steps_of_optimizers[0]

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep what is made inside without a look at the weights, which must stay as they are.

        A trace that is taken inside has it as constants, if a forward pass without gradients
        came before.
        """
        self.clear()
        self._pinned = True
        try:
            yield
        finally:
            self._pinned = False
            self.clear()

    def for_weights(self, layer: LLMLayer, weight: Tensor) -> Remember:
        """Return the function that remembers what depends on a layer and a mapper."""
        if self._pinned:
            return self._keep
        if torch.compiler.is_compiling() or _is_capturing(weight):
            return lambda name, make: make()
        if torch.is_grad_enabled():
            self.clear()
            return lambda name, make: make()
        inputs = [weight, *_parameters(layer.attention_norm)]
        parts = dict(q=layer.q_proj, k=layer.k_proj, v=layer.v_proj)
        if not self._is_fresh(inputs, parts):
            self.clear()

        def remember(name: str, make: Callable[[], Tensor]) -> Tensor:
            value = self._values.get(name)
            if value is None:
                # What is held is taken first: a value is never older than it.
                self._hold('input', inputs, whole=True)
                if (part := name.partition(' ')[0]) in parts:
                    self._hold(part, _parameters(parts[part]), whole=False)
                value = self._values[name] = make()
            return value

        return remember

    def _keep(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._values:
            self._values[name] = make().detach()
        return self._values[name]

    def _hold(self, part: str, tensors: list[Tensor], whole: bool) -> None:
        if part not in self._held:
            with torch.autocast(tensors[0].device.type, enabled=False):
                size = None if whole else self.PIECE
                self._held[part] = [_Held(t, size) for t in tensors]

    def _is_fresh(self, inputs: list[Tensor], parts: dict[str, nn.Module]) -> bool:
        """Whether everything that is held is what it was."""
        if not self._held:
            return True
        if self._steps != _steps_of_optimizers[0]:
            return False
        self._uses += 1
        found, expected, written = [], [], []
        with torch.autocast(inputs[0].device.type, enabled=False):
            for part, held in self._held.items():
                tensors = inputs if part == 'input' else _parameters(parts[part])
                if len(tensors) != len(held):
                    return False
                for tensor, before in zip(tensors, held, strict=True):
                    if before.kind != _kind(tensor):
                        return False
                    pieces: Sequence[int] = (self._uses % before.pieces,)
                    if not before.is_as_noted(tensor):
                        pieces = range(before.pieces)
                        written.append((before, tensor))
                    for piece in pieces:
                        found.append(before.products(tensor, piece))
                        expected.append(before.expected[piece])
        # One comparison is one wait for a GPU. NaN differs from itself, and is folded again.
        if not torch.equal(torch.cat(found), torch.cat(expected)):
            return False
        for before, tensor in written:
            before.note(tensor)
        return True


class _Held:
    """What a tensor was when something was made of it.

    Args:
        tensor (Tensor): A vector, which is kept, or a matrix, of whose rows products with a
            random vector are kept.
        size (int, optional): Bytes of a piece. None: the tensor is one piece.
    """

    def __init__(self, tensor: Tensor, size: int | None) -> None:
        self.kind = _kind(tensor)
        self.note(tensor)
        self.wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        matrix = tensor.dim() > 1
        self.pieces = min(max(1, tensor.nbytes // size), len(tensor)) if size and matrix else 1
        self.vector: Tensor | None = None
        if matrix:
            generator = torch.Generator().manual_seed(0)
            # Between 1 and 2, of both signs: no value counts for little.
            numbers = torch.rand(2, tensor.shape[-1], generator=generator)
            vector = (1 + numbers[0]) * torch.where(numbers[1] < 0.5, -1.0, 1.0)
            self.vector = vector.to(tensor.device, self.wide)
        self.expected = [self.products(tensor, i).clone() for i in range(self.pieces)]

    def note(self, tensor: Tensor) -> None:
        """Note what most writes change: the tensor itself, its address, its count of writes."""
        # Kept, since the id and the memory of one that is gone could be given to the next one.
        self.tensor, self.place = tensor, _place(tensor)

    def is_as_noted(self, tensor: Tensor) -> bool:
        """Whether a tensor is the one that was noted, and nobody has said that he wrote to it."""
        return self.tensor is tensor and self.place == _place(tensor)

    def products(self, tensor: Tensor, piece: int) -> Tensor:
        """Return a piece of the tensor, times the vector if it is a matrix."""
        rows = tensor if self.pieces == 1 else tensor[piece :: self.pieces]
        rows = rows.to(self.wide)
        return rows if self.vector is None else rows @ self.vector


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.device


def _place(tensor: Tensor) -> tuple[int, int | None]:
    return tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def _parameters(part: nn.Module | None) -> list[Tensor]:
    return [] if part is None else list(unwrap(part).parameters())


def _is_capturing(tensor: Tensor) -> bool:
    """Whether a CUDA graph is recorded, which must not wait for a comparison."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


#: How many steps the optimizers of this process have taken. Fused ones leave no mark.
_steps_of_optimizers = [0]


def _count_step(*_: Any) -> None:
    _steps_of_optimizers[0] += 1


register_optimizer_step_post_hook(_count_step)
