"""Rounds as another CPU might: products of matrices come out a few ulp beside what they are.

A test that compares two computations in float32 with a tolerance chosen by hand passes
on the machine where it was chosen. The kernels of another CPU add in another order, and
it fails there. ``pytest --ulp 4`` shows such tests without that CPU: each element of
every product of matrices, convolution and attention, in forward and backward passes, is
multiplied by ``1 + k * eps`` with a random integer ``k`` between -4 and 4 and the
``eps`` of its dtype.

Every call draws anew. A test that compares bits by design, as one that resumes a
training does, is marked ``bitwise``: in it an operation that gets the same tensors
again gives the same bits again, as on any CPU, but other bits than torch's.

The kernels themselves are replaced, below autograd and below all modes of torch, so
that nothing above them takes another path. Integers are left alone, as is what another
process computes.
"""

import contextlib
import warnings
import zlib

import torch

# Of each operation those of its results that are rounded; None is all of them.
OPERATIONS = {
    'mm': None,
    'addmm': None,
    '_addmm_activation': None,
    'mv': None,
    'addmv': None,
    'dot': None,
    'bmm': None,
    'baddbmm': None,
    'addbmm': None,
    'convolution': None,
    'convolution_backward': None,
    # Its second result, the sums of exponentials, is what its backward pass reads.
    '_scaled_dot_product_flash_attention_for_cpu': (0,),
    '_scaled_dot_product_flash_attention_for_cpu_backward': None,
}


class Rounding:
    """Multiplies the results of matrix products by 1 + k eps, at random.

    Args:
        ulps (int): The largest ``|k|``.
        seed (int): Another seed draws other numbers.
    """

    def __init__(self, ulps: int, seed: int) -> None:
        self.ulps = ulps
        self.seed = seed
        # How an operation gets its random numbers; without it nothing changes.
        self._draw = None
        self._library = None

    def install(self) -> None:
        """Replace torch's kernels on the CPU, in this process and until :meth:`remove`."""
        self._library = torch.library.Library('aten', 'IMPL')
        with warnings.catch_warnings():
            warnings.filterwarnings(
                'ignore', message='Warning only once for all operators'
            )
            for name, rounded in OPERATIONS.items():
                kernel = self._rounding_kernel(name, rounded)
                options = dict(with_keyset=True, allow_override=True)
                self._library.impl(name, kernel, 'CPU', **options)

    def remove(self) -> None:
        """Give torch its kernels back."""
        self._library._destroy()
        self._library = None

    @contextlib.contextmanager
    def during(self, key: str, repeatable: bool = False):
        """Round within this context, with numbers that follow from the seed and ``key``.

        Each call draws anew, so that the same operation on the same tensors gives other
        bits. With ``repeatable`` it gives the same bits: the numbers then follow from
        the tensors, too.
        """
        number = zlib.crc32(f'{self.seed} {key}'.encode())
        random = torch.Generator().manual_seed(number)

        def draw_anew(call: tuple) -> torch.Generator:
            return random

        def draw_alike(call: tuple) -> torch.Generator:
            return torch.Generator().manual_seed(_hash(call, self.seed))

        before = self._draw
        if repeatable:
            self._draw = draw_alike
        else:
            self._draw = draw_anew
        try:
            yield
        finally:
            self._draw = before

    def _rounding_kernel(self, name: str, rounded: tuple | None):
        original = torch.library.get_kernel(f'aten::{name}', 'CPU')

        def kernel(keyset, *args, **options):
            results = original.call_boxed(keyset, *args, **options)
            if self._draw is None:
                return results
            random = self._draw((name, *args, *options.values()))
            if isinstance(results, torch.Tensor):
                self._round(results, random)
                return results
            for i, result in enumerate(results):
                if rounded is None or i in rounded:
                    self._round(result, random)
            return results

        return kernel

    def _round(self, result: torch.Tensor | None, random: torch.Generator) -> None:
        if result is None or not result.dtype.is_floating_point:
            return
        k = torch.randint(
            -self.ulps,
            self.ulps + 1,
            result.shape,
            generator=random,
            dtype=result.dtype,
        )
        result.mul_(1 + k * torch.finfo(result.dtype).eps)


def _hash(call: tuple, seed: int) -> int:
    """Return a checksum of an operation's name, tensors and options."""
    for value in call:
        if isinstance(value, torch.Tensor):
            layout = f'{value.dtype} {value.shape} {value.stride()}'
            seed = zlib.crc32(layout.encode(), seed)
            numbers = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            seed = zlib.crc32(numbers, seed)
        else:
            seed = zlib.crc32(repr(value).encode(), seed)
    return seed
