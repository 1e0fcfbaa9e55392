"""RNN, GRU and LSTM: drop-ins for torch.nn that restart rows, take single steps and name backends.

Same constructor, parameter names, gate order and ``state_dict`` as torch.nn; the state goes in and
comes out, and never lives on the module.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime import kernels
from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import Spec, cpu
from throughtime.kernels.stack import layer_state
from throughtime.state import State

_CELLS: dict[str, Any] = {
    "rnn_tanh": torch.rnn_tanh_cell,
    "rnn_relu": torch.rnn_relu_cell,
    "gru": torch.gru_cell,
    "lstm": torch.lstm_cell,
}
_FEW_ROWS = 8  # more of them are better served by packed weights


class _Recurrent(nn.RNNBase):
    """What the three layers add to torch.nn's.

    They share torch.nn's base and use its code, but do not inherit from torch.nn.RNN, GRU and LSTM
    themselves: torch.compile refuses every instance of these (`torch._dynamo.config.allow_rnn`).
    """

    parent: type[nn.RNNBase]  # torch.nn's
    backend: str
    weights: str = "float32"
    kind: str
    _stream: cpu.Stream | None = None

    @property
    def _names(self) -> tuple[str, ...]:
        """Of the weights, in the order of the kernels."""
        return tuple(name for layer in self._all_weights for name in layer)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State = None,
        reset: Tensor | None = None,
        initial: State = None,
    ) -> tuple[Any, State]:
        """Runs the layer(s) over a sequence; with `reset` None this is torch.nn's forward.

        input: ``[T, B, I]``, ``[B, T, I]`` (batch_first), ``[T, I]`` or a PackedSequence.
        hx: as in torch.nn, zeros (or `initial`) when None.
        reset: bool ``[T, B]`` (``[B, T]`` if batch_first; ``[T]`` unbatched): True restarts that
        row before step t. initial: the state that rows restart from, ``[L*D, 1 or B, H]``; zeros
        when None.
        Returns the output and the state after the last step, laid out as in torch.nn.
        """
        backend = self._choose(input)
        plain = reset is None and initial is None
        if plain and backend == "torch":
            return self.parent.forward(self, input, hx)
        hx = tuple(hx) if isinstance(hx, list) else hx
        if not self._takes(input, hx):
            return self._refuse(input, hx)
        if isinstance(input, PackedSequence):
            if not plain:
                raise SettingError(
                    "a PackedSequence restarts its own rows; pass a padded tensor to use reset"
                )
            return self._packed(input, hx, backend)
        batched = input.dim() == 3
        time_dim = 1 if batched and self.batch_first else 0
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if time_dim else x
        state = hx if batched or hx is None else _map(hx, lambda part: part.unsqueeze(1))
        if state is None:
            state = self._start(x, initial)
        if reset is not None:
            reset = self._check_reset(reset, x, batched, time_dim)
        y, state = kernels.run(self._spec(), x, state, self._flat(), reset, initial, backend)
        y = y.transpose(0, 1) if time_dim else y
        if not batched:
            y, state = y.squeeze(1), _map(state, lambda part: part.squeeze(1))
        return y, state

    def _packed(
        self, packed: PackedSequence, hx: State, backend: str
    ) -> tuple[PackedSequence, State]:
        """The rows of a PackedSequence, which end one after the other."""
        data, sizes, order, back = packed
        x, lengths = pad_packed_sequence(PackedSequence(data, sizes))
        if hx is None:
            state = self._start(x, None)
        else:
            state = hx if order is None else states.index(hx, order)
        ends = lengths.to(x.device)  # those of a PackedSequence are on the CPU
        y, state = kernels.run(self._spec(), x, state, self._flat(), None, None, backend, ends)
        rows = pack_padded_sequence(y, lengths).data
        return PackedSequence(rows, sizes, order, back), (
            state if back is None else states.index(state, back)
        )

    def step(self, x_t: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One step: the same numbers as the sequence call.

        x_t: ``[B, I]``. state: ``[L, B, H]`` (LSTM: (h, c)), zeros when None.
        Returns the output ``[B, H]`` and the next state. Raises SettingError if bidirectional.
        """
        stream = self._stream
        if stream is not None and not torch.is_grad_enabled() and not cpu.seen_by_torch():
            found = stream.step(self._parameters, x_t, state)
            if found is not None:
                return found
        if self.bidirectional:
            raise SettingError("a bidirectional layer has no single step: it needs the future")
        if state is None:
            state = self._start(x_t.unsqueeze(0), None)
        if not torch.is_grad_enabled() and not cpu.seen_by_torch() and self._can_stream(x_t, state):
            self._stream = cpu.Stream(self._spec(), self._flat(), len(x_t))
            return self.step(x_t, state)
        backend = self._choose(x_t)
        if not self._has_cell(backend):
            y, state = kernels.run(
                self._spec(), x_t.unsqueeze(0), state, self._flat(), None, None, backend
            )
            return y[0], state
        cell, weights = _CELLS[self.kind], self._flat()
        per_layer, y, finals = (4 if self.bias else 2), x_t, []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                y = F.dropout(y, self.dropout)
            w = weights[layer * per_layer : (layer + 1) * per_layer]
            after = cell(y, layer_state(state, layer), *w)
            finals.append(after)
            y = after[0] if self.kind == "lstm" else after
        if self.kind == "lstm":
            return y, (torch.stack([f[0] for f in finals]), torch.stack([f[1] for f in finals]))
        return y, torch.stack(finals)

    def _has_cell(self, backend: str) -> bool:
        """Whether torch's cell gives the numbers of this backend."""
        rounded = self.weights != "float32" or torch.is_autocast_enabled("cpu")
        return (
            self.kind in _CELLS
            and not self.proj_size
            and backend != "reference"
            and not (rounded and backend == "cpu")
        )

    def _can_stream(self, x_t: Tensor, state: State) -> bool:
        """Whether the native kernel takes single steps of these weights and this input."""
        first, *rest = states.leaves(state)
        weights = self._flat()
        return (
            self._choose(x_t) == "cpu"
            and self.weights == "float32"
            and not self.proj_size
            and 0 < len(x_t) <= _FEW_ROWS
            and x_t.shape[1] == self.input_size
            and first.shape == (self.num_layers, len(x_t), self.hidden_size)
            and all(_alike(first, part) for part in rest)
            and tuple(self._parameters) == self._names  # and none is computed anew for each call
            and all(t.dtype == weights[0].dtype for t in (x_t, first, *weights))
            and all(t.is_contiguous() for t in (x_t, first, *weights))
            and weights[0].dtype in cpu.TYPES
        )

    def _takes(self, input: Tensor | PackedSequence, hx: State) -> bool:
        """Whether the input and the state have the types and shapes of this layer."""
        if isinstance(input, PackedSequence):
            x, dims, batch = input.data, [2], [int(input.batch_sizes[0])]
        else:
            x, dims = input, [2, 3]
            batch = [x.shape[0 if self.batch_first else 1]] if x.dim() == 3 else []
        weight = getattr(self, self._names[0])
        any_type = not x.is_meta and torch.is_autocast_enabled(x.device.type)
        if (
            x.dim() not in dims
            or x.shape[-1] != self.input_size
            or x.device != weight.device
            or not (any_type or x.dtype == weight.dtype)
        ):
            return False
        if hx is None:
            return True
        rows = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size]
        if self.kind == "lstm":
            sizes.append(self.hidden_size)
        parts = hx if self.kind == "lstm" and isinstance(hx, tuple) else (hx,)
        return len(parts) == len(sizes) and all(
            isinstance(part, Tensor)
            and part.shape == (rows, *batch, size)
            and part.device == x.device
            and (any_type or part.dtype == x.dtype)
            for part, size in zip(parts, sizes, strict=True)
        )

    def _refuse(self, input: Tensor | PackedSequence, hx: State) -> Any:
        """torch.nn says what is wrong, in its own words."""
        self.parent.forward(self, input, hx)
        raise SettingError("the input or the state does not have the types and shapes of the layer")

    def _choose(self, x: Tensor | PackedSequence) -> str:
        """The backend; what the kernels do not do goes to torch."""
        if self.proj_size:
            if self.backend not in ("auto", "torch"):
                raise BackendError(f"backend '{self.backend}' has no proj_size; use 'torch'")
            return "torch"
        chosen = kernels.choose(self.kind, self.backend, x[0] if isinstance(x, tuple) else x)
        if chosen != "cpu" and self.weights != "float32":
            raise BackendError(
                f"weights '{self.weights}' need backend 'cpu' and float32 input; "
                f"here runs backend '{chosen}'"
            )
        return chosen

    def _spec(self) -> Spec:
        dropout = float(self.dropout) if self.training else 0.0
        return Spec(
            self.kind, self.num_layers, self.bias, self.bidirectional, dropout, self.weights
        )

    def _flat(self) -> list[Tensor]:
        """The weights by name, so that functional_call and parametrizations are seen."""
        return [getattr(self, name) for name in self._names]

    def _start(self, x: Tensor, initial: State) -> State:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size]
        if self.kind == "lstm":
            sizes.append(self.hidden_size)
        zeros = tuple(x.new_zeros(rows, x.shape[1], size) for size in sizes)
        if initial is not None:
            parts = initial if isinstance(initial, tuple) else (initial,)
            zeros = tuple(p.expand_as(z) for p, z in zip(parts, zeros, strict=True))
        return zeros if self.kind == "lstm" else zeros[0]

    def _check_reset(self, reset: Tensor, x: Tensor, batched: bool, time_dim: int) -> Tensor:
        reset = reset if batched else reset.unsqueeze(-1)
        reset = reset.transpose(0, 1) if time_dim else reset
        if reset.shape != x.shape[:2] or reset.dtype != torch.bool:
            expected = "[B, T]" if time_dim else "[T, B]"
            raise SettingError(
                f"reset must be bool {expected} = {list(x.shape[:2])} in time-major order; "
                f"got {reset.dtype} {list(reset.shape)}"
            )
        return reset.to(x.device)


def _check_weights(weights: str) -> str:
    if weights not in ("float32", "bfloat16"):
        raise SettingError(f"weights '{weights}' are not float32 or bfloat16")
    return weights


def _alike(h: Tensor, c: Tensor) -> bool:
    return c.shape == h.shape and c.dtype == h.dtype and c.is_contiguous()


def _map(state: State, function: Any) -> State:
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


class RNN(_Recurrent):
    """``S_t = σ(X_t W_x + O_{t-1})``, ``O_t = S_t W_rec``: torch.nn.RNN with reset and step.

    nonlinearity: "tanh", "relu" or "identity" (the linear recurrence). backend: see `kernels`.
    weights: "bfloat16" rounds them in the products of backend "cpu", see `kernels.Spec`.
    """

    parent = nn.RNN

    def __init__(
        self, *args: Any, nonlinearity: str = "tanh", backend: str = "auto",
        weights: str = "float32", **kwargs: Any,
    ) -> None:  # fmt: skip
        _no_projection(kwargs)
        if len(args) > 3:  # torch.nn's fourth positional argument
            args, nonlinearity = (*args[:3], *args[4:]), args[3]
        if nonlinearity not in ("tanh", "relu", "identity"):
            raise SettingError(f"nonlinearity '{nonlinearity}' is not tanh, relu or identity")
        super().__init__("RNN_RELU" if nonlinearity == "relu" else "RNN_TANH", *args, **kwargs)
        self.nonlinearity = nonlinearity
        self.backend, self.weights = kernels.check(backend), _check_weights(weights)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"rnn_{self.nonlinearity}"


class GRU(_Recurrent):
    """torch.nn.GRU with reset and step (Cho et al. 2014); backend and weights as for `RNN`."""

    parent = nn.GRU
    kind = "gru"

    def __init__(
        self, *args: Any, backend: str = "auto", weights: str = "float32", **kwargs: Any
    ) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)
        self.backend, self.weights = kernels.check(backend), _check_weights(weights)


class LSTM(_Recurrent):
    """torch.nn.LSTM with reset and step (Hochreiter & Schmidhuber 1997); more as for `RNN`."""

    parent = nn.LSTM
    kind = "lstm"
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]

    def __init__(
        self, *args: Any, backend: str = "auto", weights: str = "float32", **kwargs: Any
    ) -> None:
        super().__init__("LSTM", *args, **kwargs)
        self.backend, self.weights = kernels.check(backend), _check_weights(weights)


def _no_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise SettingError("proj_size argument is only supported for LSTM, not RNN or GRU")
