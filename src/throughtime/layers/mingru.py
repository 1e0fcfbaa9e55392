"""MinGRU: a gated layer whose recurrence is element-wise, so that its exact gradient is cheap.

Units do not see each other's pasts. So a sequence is one parallel scan, and the derivative of a
unit's state by its own weights, carried forward in time, is no larger than the weights themselves
(real-time recurrent learning without its cost; see `bptt.Online`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.layers.parallel_scan import scan
from throughtime.layers.recurrent import as_leaf, is_symbol
from throughtime.state import State, Traced


class MinGRU(nn.Module):
    """``h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ (W_h x_t + b_h)``, ``z_t = σ(W_z x_t + b_z)``.

    Feng et al. (2024), "Were RNNs All We Needed?". Shapes and parameter names as for `tt.GRU`,
    without the recurrent ones: ``weight_ih_l0`` ``[2H, I]``, ``bias_ih_l0`` ``[2H]``, rows of z
    first. Plain torch: derivatives of any order, on any device.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, device, dtype: as for
            `tt.RNN`.
        backend: "auto" or "reference", which are the same here.

    Raises:
        BackendError: for another backend.
        SettingError: for sizes or a dropout that make no sense.
    """

    kind = "mingru"
    backend = "reference"  # as tt.GRU calls plain torch; there is no other
    state_parts = 1
    memory_gates = (None, 0)  # as of tt.GRU: none keeps the state, z admits the input

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        backend: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if backend not in ("auto", self.backend):
            raise BackendError(f"mingru runs on backend '{self.backend}', not '{backend}'")
        for name, size in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise SettingError(f"{name} must be at least 1, got {size}")
        if not 0 <= dropout <= 1:
            raise SettingError(f"dropout must lie in [0, 1], got {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        for layer in range(num_layers):
            width = hidden_size if layer else input_size
            shapes = {"weight": (2 * hidden_size, width), "bias": (2 * hidden_size,)}
            for name in ("weight", "bias")[: 1 + bias]:
                parameter = nn.Parameter(torch.empty(shapes[name], device=device, dtype=dtype))
                self.register_parameter(f"{name}_ih_l{layer}", parameter)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As torch.nn does for its recurrent layers."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)

    def extra_repr(self) -> str:
        return ", ".join(
            [f"{self.input_size}, {self.hidden_size}"]
            + [f"num_layers={self.num_layers}"] * (self.num_layers > 1)
            + ["bias=False"] * (not self.bias)
            + ["batch_first=True"] * self.batch_first
            + [f"dropout={self.dropout}"] * (self.dropout > 0)
        )

    def forward(
        self, input: Tensor, hx: State = None, reset: Tensor | None = None, initial: State = None
    ) -> tuple[Tensor, State]:
        """Runs the layer(s) over a sequence, all steps at once.

        Args:
            input: ``[T, B, I]``, ``[B, T, I]`` (batch_first) or ``[T, I]``.
            hx: the state before, ``[L, B, H]`` (``[L, H]`` unbatched), or what `traced` makes;
                zeros (or `initial`) when None.
            reset: bool ``[T, B]`` (``[B, T]`` if batch_first; ``[T]`` unbatched): True restarts
                that row before step t.
            initial: the state that rows restart from, ``[L, 1 or B, H]``; zeros when None.

        Returns:
            The output, laid out as the input, and the state after the last step.

        Raises:
            SettingError: if input or `reset` have other shapes or types.
        """
        if is_symbol(input):
            return as_leaf(self, input, hx=hx, reset=reset, initial=initial)
        if not isinstance(input, Tensor) or input.dim() not in (2, 3):
            raise SettingError(
                "input must be a tensor [T, B, I], [T, I], or [B, T, I] (batch_first)"
            )
        batched = input.dim() == 3
        time_dim = 1 if batched and self.batch_first else 0
        x = (input if batched else input.unsqueeze(1)).transpose(0, time_dim)
        if reset is not None:
            reset = (reset if batched else reset.unsqueeze(-1)).transpose(0, time_dim)
            if reset.shape != x.shape[:2] or reset.dtype != torch.bool:
                raise SettingError(
                    f"reset must be bool {list(x.shape[:2])} in time-major order; "
                    f"got {reset.dtype} {list(reset.shape)}"
                )
        if not batched and hx is not None:
            hx = states.apply(lambda part: part.unsqueeze(1), hx)
        y, state = self._run(x, hx, reset, initial)
        if not batched:
            return y.squeeze(1), states.apply(lambda part: part.squeeze(1), state)
        return y.transpose(0, time_dim), state

    def step(self, x_t: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One step: the sequence call on a sequence of one element.

        Args:
            x_t: ``[B, I]``, or ``[I]`` unbatched.
            state: ``[L, B, H]``, ``[L, H]`` unbatched; None: the initial one.

        Returns:
            The output ``[B, H]`` (``[H]``) and the next state.
        """
        time_dim = 1 if self.batch_first and x_t.dim() == 2 else 0
        y, state = self(x_t.unsqueeze(time_dim), state)
        return y.squeeze(time_dim), state

    def __prepare_scriptable__(self) -> nn.Module:
        raise BackendError("torch has no layer 'mingru' of its own, and torch.jit.script no other")

    def traced(self, state: Tensor | None = None, batch_size: int = 1) -> Traced:
        """A state that carries its own past, for `bptt.Online`.

        It is ``(h, by_weights, by_initial)``: h ``[1, B, H]`` as in `state` (zeros when None),
        ``dh_j / d(row j of W_z, W_h)`` ``[2, B, H, I + 1]`` (the bias last, if there is one) and
        ``dh_j / d initial_j`` ``[1, B, H]``. The past before it counts as given. Weights and
        `initial` must be the same functions of the parameters in every call: no dropout on them.

        Args:
            state: ``[1, B, H]``, or None.
            batch_size: B, where no state says it.

        Raises:
            SettingError: for more than one layer: the lower one changes what the upper one sees,
                and those derivatives are not element-wise.
        """
        if self.num_layers > 1:
            raise SettingError(
                f"only one layer can be traced exactly, this MinGRU has {self.num_layers}; "
                "use Full, Checkpointed or Truncated"
            )
        weight: Any = self.weight_ih_l0
        h = weight.new_zeros(1, batch_size, self.hidden_size) if state is None else state.detach()
        if h.dim() != 3 or h.shape[::2] != (1, self.hidden_size):
            raise SettingError(f"the state must be [1, B, {self.hidden_size}], got {list(h.shape)}")
        columns = self.input_size + int(self.bias)
        by_weights = h.new_zeros(2, h.shape[1], self.hidden_size, columns)
        return Traced((h, by_weights, torch.zeros_like(h)))

    def _run(
        self, x: Tensor, hx: State, reset: Tensor | None, initial: State
    ) -> tuple[Tensor, State]:
        """Time-major and batched."""
        rows = x.shape[1]
        if x.shape[-1] != self.input_size:
            raise SettingError(f"input has {x.shape[-1]} columns, the layer {self.input_size}")
        if isinstance(hx, Traced):
            return self._run_traced(x, hx, reset, initial)
        if hx is None:
            weight: Any = self.weight_ih_l0
            hx = weight.new_zeros(self.num_layers, rows, self.hidden_size)
            hx = hx if initial is None else initial.expand_as(hx)
        if not isinstance(hx, Tensor) or hx.shape != (self.num_layers, rows, self.hidden_size):
            result = list(hx.shape) if isinstance(hx, Tensor) else type(hx).__name__
            raise SettingError(
                f"the state must be [{self.num_layers}, {rows}, {self.hidden_size}], got {result}"
            )
        y, last = x, []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                y = F.dropout(y, self.dropout, self.training)
            start = None if initial is None else initial[layer]
            y = _Layer(self, layer, y, reset, start).outputs(hx[layer])
            last.append(y[-1] if len(y) else hx[layer])
        return y, torch.stack(last)

    def _run_traced(
        self, x: Tensor, hx: Traced, reset: Tensor | None, initial: State
    ) -> tuple[Tensor, Traced]:
        """As `_run`; what came before x is in the traces, not in the graph."""
        h, by_weights, by_initial = hx
        expected = self.input_size + int(self.bias)
        if by_weights.shape != (2, x.shape[1], self.hidden_size, expected):
            raise SettingError("this traced state belongs to another layer or another batch size")
        if torch.is_grad_enabled():
            if x.requires_grad:
                raise SettingError(
                    "something below this layer is trained (its input requires gradients): what "
                    "it does through earlier steps is not in the traces of this layer; detach the "
                    "input or use Full, Checkpointed or Truncated"
                )
            if initial is None and bool(by_initial.any()):
                raise SettingError(
                    "rows of this traced state restarted from `initial`; pass it in every call"
                )
        start = None if initial is None else initial[0]
        layer = _Layer(self, 0, x, reset, start)
        h = _Past.apply(h[0].detach(), by_weights, by_initial[0], layer.weight, layer.bias, start)
        y = layer.outputs(h)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            by_weights, by_initial = layer.traces(h, y, by_weights, by_initial)
            last = (y[-1:] if len(y) else h.unsqueeze(0)).detach()
        return y, Traced((last, by_weights, by_initial))


class _Layer:
    """One layer on one input: what it keeps and what it adds at each step, ``[T, B, H]``."""

    def __init__(
        self, module: MinGRU, layer: int, x: Tensor, reset: Tensor | None, start: Tensor | None
    ) -> None:
        self.weight: Tensor = getattr(module, f"weight_ih_l{layer}")
        self.bias: Tensor | None = getattr(module, f"bias_ih_l{layer}") if module.bias else None
        self.x, self.start = x, start
        self.restarts = None if reset is None else reset.to(x.device).unsqueeze(-1)
        gates = F.linear(x, self.weight, self.bias).to(self.weight.dtype)
        gate, self.candidate = gates.chunk(2, -1)
        self.update = torch.sigmoid(gate)
        self.keep = 1 - self.update
        self.add = self.update * self.candidate
        if self.restarts is not None:
            if start is not None:
                self.add = torch.where(self.restarts, self.add + self.keep * start, self.add)
            self.keep = self.keep.masked_fill(self.restarts, 0.0)

    def outputs(self, h: Tensor) -> Tensor:
        """Every h_t, from the one before the first step."""
        return scan(self.keep, self.add, h)

    def traces(
        self, h: Tensor, y: Tensor, by_weights: Tensor, by_initial: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The traces after the last step, from those before the first: e' = keep e + immediate.

        Written out over the segment: each step's immediate derivative, times what all later steps
        keep of it, times its input.
        """
        before = torch.cat([h.unsqueeze(0), y])[:-1]
        if self.restarts is not None:
            before = torch.where(self.restarts, 0.0 if self.start is None else self.start, before)
        ones = torch.ones_like(h).unsqueeze(0)
        kept = torch.cat([ones, self.keep.flip(0)]).cumprod(0).flip(0)  # by the steps from t on
        whole, later = kept[0], kept[1:]
        by_gate = (self.candidate - before) * self.update * (1 - self.update) * later
        immediate = torch.stack([by_gate, self.update * later])
        x = self.x if self.bias is None else F.pad(self.x, (0, 1), value=1.0)
        new = torch.einsum("gtbh,tbi->gbhi", immediate, x.to(immediate.dtype))
        by_weights = torch.addcmul(new, whole.unsqueeze(-1), by_weights)
        by_initial = whole * by_initial
        if self.restarts is not None and self.start is not None:
            restarted = torch.where(self.restarts, (1 - self.update) * later, 0.0)
            by_initial = by_initial + restarted.sum(0)
        return by_weights, by_initial


class _Past(torch.autograd.Function):
    """The state as it is; its gradient goes on to the parameters through the traces."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        by_weights: Tensor,
        by_initial: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        start: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(by_weights, by_initial)
        ctx.bias, ctx.start = bias is not None, None if start is None else start.shape
        return h.view_as(h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_weights, by_initial = ctx.saved_tensors
        total = torch.einsum("bh,gbhi->ghi", grad, by_weights).flatten(0, 1)
        start = None if ctx.start is None else (grad * by_initial).sum_to_size(ctx.start)
        if not ctx.bias:
            return None, None, None, total, None, start
        return None, None, None, total[:, :-1], total[:, -1], start
