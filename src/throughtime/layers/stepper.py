"""Single steps of a layer whose weights no longer change, as fast as they can be."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.errors import SettingError
from throughtime.kernels import cpu, native
from throughtime.layers import recurrent
from throughtime.layers.mingru import MinGRU
from throughtime.state import State

_PLAIN = (Tensor, nn.Parameter)


class Stepper:
    """One step at a time, without gradients, of a layer as it is now.

    The weights are copied once, here: what is trained or loaded into the layer later is not seen;
    make another Stepper then. Steps give the numbers of `layer.step`. On the CPU, in float32 and
    float64 and for up to eight rows, they take a few microseconds. Several threads may share one.

        stepper = tt.Stepper(gru)
        y, state = stepper(x, state)

    Args:
        layer: a `tt.RNN`, `tt.GRU`, `tt.LSTM`, `tt.LiGRU` or `tt.MinGRU`, or what `tt.accelerate`
            swapped.

    Raises:
        SettingError: for a bidirectional layer, which has no single step; for one that would drop
            out, which is trained and not frozen; and for other modules.
    """

    def __init__(self, layer: nn.Module) -> None:
        if not isinstance(layer, (recurrent._Recurrent, MinGRU)):
            raise SettingError(
                f"a Stepper takes a layer such as tt.GRU, not a {type(layer).__name__}; "
                "tt.accelerate makes them of torch's own"
            )
        if getattr(layer, "bidirectional", False):
            raise SettingError("a bidirectional layer has no single step: it needs the future")
        if layer.training and layer.dropout and layer.num_layers > 1:
            raise SettingError("this layer is being trained and would drop out; call eval() first")
        self.layer = _frozen(layer)
        self._steps: cpu.Steps | None = None
        self._shapes: dict[torch.Size, torch.Size] = {}  # of states, by those of inputs
        if isinstance(self.layer, recurrent._Recurrent) and _is_native(self.layer):
            weights = self.layer._flat()
            self._steps, self._dtype = cpu.Steps(self.layer._spec(), weights), weights[0].dtype
            self._pair = len(self.layer.cell.parts) == 2
            layers, hidden = self.layer.num_layers, self.layer.hidden_size
            for rows in range(1, cpu.ROWS + 1):
                shape = torch.Size((rows, self.layer.input_size))
                self._shapes[shape] = torch.Size((layers, rows, hidden))

    def __repr__(self) -> str:
        return f"Stepper({self.layer})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Stepper, (self.layer,)

    def __call__(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One step.

        Args:
            x: ``[B, I]``, or ``[I]`` unbatched.
            state: ``[L, B, H]`` (LSTM: (h, c)), ``[L, H]`` unbatched; zeros when None.

        Returns:
            The output ``[B, H]`` (``[H]``) and the next state, without gradients.

        Raises:
            SettingError: as `step` of the layer.
        """
        wanted = self._shapes.get(x.shape) if type(x) in _PLAIN else None
        if wanted is None or not self._fits(x, x.shape) or cpu.seen_by_torch():
            with torch.no_grad():
                return self.layer.step(x, state)  # which says what is wrong, if anything is
        if state is None:
            state = x.new_zeros(wanted)
            state = (state, torch.zeros_like(state)) if self._pair else state
        steps = self._steps
        assert steps is not None
        if not self._pair and self._fits(state, wanted):
            h, _ = steps(x, state, None)
            return h[-1].clone(), h
        if self._pair and type(state) is tuple and len(state) == 2:
            h, c = state
            if self._fits(h, wanted) and self._fits(c, wanted):
                h, c = steps(x, h, c)
                return h[-1].clone(), (h, c)
        with torch.no_grad():
            return self.layer.step(x, state)

    def _fits(self, part: Any, shape: torch.Size) -> bool:
        """Whether the native steps read such a tensor; the layer itself takes all others."""
        return (
            type(part) in _PLAIN
            and part.shape == shape
            and part.dtype is self._dtype
            and part.is_cpu
            and part.is_contiguous()
        )


def _is_native(layer: recurrent._Recurrent) -> bool:
    first = layer._flat()[0]
    return (
        layer.backend in ("auto", "cpu")
        and native.available()
        and layer.weight_dtype == "float32"
        and not layer.proj_size
        and first.is_cpu
        and first.dtype in native.TYPES
    )


def _frozen(layer: Any) -> Any:
    """A copy with the values that its weights have in a call now, and nothing that changes them."""
    if isinstance(layer, MinGRU):
        return copy.deepcopy(layer).requires_grad_(False)
    kinds = (recurrent.RNN, recurrent.GRU, recurrent.LSTM, recurrent.LiGRU)
    kind = next(kind for kind in kinds if isinstance(layer, kind))
    more = {"nonlinearity": layer.nonlinearity} if kind is recurrent.RNN else {}
    if layer.proj_size:
        more["proj_size"] = layer.proj_size
    twin = kind(
        layer.input_size, layer.hidden_size, layer.num_layers, bias=layer.bias,
        batch_first=layer.batch_first, weight_dtype=layer.weight_dtype, backend=layer.backend,
        device="meta", **more,
    )  # fmt: skip
    first = next(layer.parameters())
    with torch.no_grad():
        if layer._forward_pre_hooks:  # they compute weights anew, as for any call
            layer(first.new_zeros(1, 1, layer.input_size))
        for name in layer._names:
            value = getattr(layer, name).detach().clone(memory_format=torch.contiguous_format)
            setattr(twin, name, nn.Parameter(value, requires_grad=False))
    return twin.eval()
