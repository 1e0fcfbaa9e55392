"""RNN, GRU and LSTM: drop-ins for torch.nn that restart rows, take single steps and name backends.

Same constructor, parameter names, gate order and ``state_dict`` as torch.nn; the state goes in and
comes out, and never lives on the module.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime import kernels
from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import Spec
from throughtime.kernels.cells import CELLS, Cell
from throughtime.state import State


class _Recurrent(nn.RNNBase):
    """What our layers add to torch.nn's.

    They share torch.nn's base and use its code, but do not inherit from torch.nn.RNN, GRU and LSTM
    themselves: torch.compile refuses every instance of these (`torch._dynamo.config.allow_rnn`). So
    ``isinstance(tt.GRU(…), torch.nn.GRU)`` is False; ask for `torch.nn.RNNBase`.
    """

    parent: type[nn.RNNBase] | None = None  # torch.nn's, where there is one
    backend: str
    weight_dtype: str = "float32"
    kind: str

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        weight_dtype: str | torch.dtype = "float32", backend: str = "auto",
        device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self._build(sizes, weight_dtype, backend, device=device, dtype=dtype)

    def _build(
        self, sizes: tuple[Any, ...], weight_dtype: str | torch.dtype, backend: str, **options: Any
    ) -> None:
        """What every constructor does."""
        kernels.check(backend)
        known = self.cell.mode in ("RNN_TANH", "RNN_RELU", "GRU", "LSTM")
        nn.RNNBase.__init__(self, self.cell.mode if known else "LSTM", *sizes, **options)
        if not known:
            self._keep_gates()
        self.backend, self.weight_dtype = backend, str(weight_dtype).removeprefix("torch.")
        if self.weight_dtype not in ("float32", "bfloat16"):
            raise SettingError(f"weight_dtype '{weight_dtype}' is not float32 or bfloat16")

    def _keep_gates(self) -> None:
        """Of the LSTM's four gates as many as a cell has that torch.nn does not know."""
        self.mode, rows = self.cell.mode, len(self.cell.gates) * self.hidden_size
        for name in self._names:
            setattr(self, name, nn.Parameter(getattr(self, name).detach()[:rows].clone()))

    def flatten_parameters(self) -> None:
        """For cuDNN, which has torch.nn's cells only."""
        if self.parent is not None:
            super().flatten_parameters()

    @property
    def cell(self) -> Cell:
        """The row of the table of cells."""
        return CELLS[self.kind]

    @property
    def state_parts(self) -> int:
        """Tensors in a state."""
        return len(self.cell.parts)

    @property
    def memory_gates(self) -> tuple[int | None, int | None]:
        """The gates that keep the state and that admit the input, if there are such ones."""
        return self.cell.keep, self.cell.admit

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
        """Runs the layer(s) over a sequence; without `reset` this is torch.nn's forward.

        Args:
            input: ``[T, B, I]``, ``[B, T, I]`` (batch_first), ``[T, I]`` or a PackedSequence.
            hx: the state before, as in torch.nn; zeros (or `initial`) when None.
            reset: bool ``[T, B]`` (``[B, T]`` if batch_first; ``[T]`` unbatched): True restarts
                that row before step t.
            initial: the state that rows restart from, ``[L*D, 1 or B, H]``; zeros when None.

        Returns:
            The output and the state after the last step, laid out as in torch.nn.

        Raises:
            BackendError: if the layer's backend does not take this call.
            SettingError: if `reset` does not fit the input.
        """
        if is_symbol(input):
            return as_leaf(self, input, hx=hx, reset=reset, initial=initial)
        hx = tuple(hx) if isinstance(hx, list) else hx
        backend = self._choose(input)
        plain = reset is None and initial is None
        if plain and backend == "torch" and self.parent is not None and not self._empty(input):
            self._check_parts(hx)
            return self.parent.forward(self, input, hx)
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
        state = hx if batched or hx is None else states.apply(lambda part: part.unsqueeze(1), hx)
        initial = None if initial is None else self._check_initial(initial, x)
        if state is None:
            state = self._start(x, initial)
        if reset is not None:
            reset = self._check_reset(reset, x, batched, time_dim)
        y, state = kernels.run(self._spec(), x, state, self._flat(), reset, initial, backend)
        y = y.transpose(0, 1) if time_dim else y
        if not batched:
            y, state = y.squeeze(1), states.apply(lambda part: part.squeeze(1), state)
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
        """One step: the sequence call on a sequence of one element, hooks and checks included.

        Many steps without gradients take a `tt.Stepper`, which is several times as fast.

        Args:
            x_t: ``[B, I]``, or ``[I]`` unbatched.
            state: ``[L, B, H]`` (LSTM: (h, c)), ``[L, H]`` unbatched; zeros when None.

        Returns:
            The output ``[B, H]`` (``[H]``) and the next state.

        Raises:
            SettingError: if the layer is bidirectional, and as the sequence call.
        """
        if self.bidirectional:
            raise SettingError("a bidirectional layer has no single step: it needs the future")
        if not isinstance(x_t, Tensor):
            raise SettingError(f"a step takes a tensor [B, I] or [I], got {type(x_t).__name__}")
        time_dim = 1 if self.batch_first and x_t.dim() == 2 else 0
        y, state = self(x_t.unsqueeze(time_dim), state)
        return y.squeeze(time_dim), state

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
        rows, sizes = self._state_sizes()
        parts = hx if len(sizes) > 1 and isinstance(hx, tuple) else (hx,)
        return len(parts) == len(sizes) and all(
            isinstance(part, Tensor)
            and part.shape == (rows, *batch, size)
            and part.device == x.device
            and (any_type or part.dtype == x.dtype)
            for part, size in zip(parts, sizes, strict=True)
        )

    def _refuse(self, input: Tensor | PackedSequence, hx: State) -> Any:
        """torch.nn says what is wrong, in its own words."""
        self._check_parts(hx)
        if self.parent is not None:
            self.parent.forward(self, input, hx)
        raise SettingError("the input or the state does not have the types and shapes of the layer")

    def _check_parts(self, hx: State) -> None:
        """Refuses a state of the wrong kind, of which torch.nn has nothing to say."""
        pair = len(self.cell.parts) == 2
        right = isinstance(hx, tuple) and len(hx) == 2 if pair else not isinstance(hx, tuple)
        if hx is not None and not (right and all(isinstance(p, Tensor) for p in states.leaves(hx))):
            wanted = "the pair (h, c) of two tensors" if pair else "one tensor"
            got = (
                f"{type(hx).__name__} of {len(hx)}" if isinstance(hx, tuple) else type(hx).__name__
            )
            raise SettingError(f"the state of a layer '{self.kind}' is {wanted}, got a {got}")

    def _empty(self, x: Tensor | PackedSequence) -> bool:
        """A sequence of no steps, which torch.nn does not take."""
        if isinstance(x, PackedSequence) or torch.jit.is_tracing():
            return False
        return x.dim() in (2, 3) and x.shape[self.batch_first and x.dim() == 3] == 0

    def _check_initial(self, initial: State, x: Tensor) -> State:
        """Raises SettingError for what rows cannot restart from."""
        initial = tuple(initial) if isinstance(initial, list) else initial
        rows, sizes = self._state_sizes()
        self._check_parts(initial)
        for part, size in zip(states.leaves(initial), sizes, strict=True):
            fits = part.dim() == 3 and part.shape[::2] == (rows, size)
            if not fits or part.shape[1] not in (1, x.shape[1]) or part.device != x.device:
                raise SettingError(
                    f"initial must be [{rows}, 1 or {x.shape[1]}, {size}] on {x.device}, "
                    f"got {list(part.shape)} on {part.device}"
                )
        return initial

    def __prepare_scriptable__(self) -> nn.RNNBase:
        """What torch.jit.script compiles in place of this: torch's own layer, on the same weights.

        Raises:
            BackendError: where torch has no such layer.
        """
        twin = copy.copy(self)
        twin.__class__ = self._own_class()  # type: ignore[assignment]
        return twin

    def _own_class(self) -> type[nn.RNNBase]:
        """The class of torch's layer with the same parameters and numbers."""
        if self.parent is None or self.cell.torch_layer is None:
            raise BackendError(f"torch has no layer '{self.kind}' of its own")
        return self.parent

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "qconfig" and value is None:  # set on every module by torch.ao.quantization
            warnings.warn(
                f"torch's quantisation passes over {type(self).__name__}, which stays as it is; "
                "tt.restore(module) puts torch's own layers back, which it knows",
                stacklevel=3,
            )
        super().__setattr__(name, value)

    def _choose(self, x: Tensor | PackedSequence) -> str:
        """The backend; what the kernels do not do goes to torch."""
        if self.proj_size:
            if self.backend not in ("auto", "torch"):
                raise BackendError(f"backend '{self.backend}' has no proj_size; use 'torch'")
            return "torch"
        first = x[0] if isinstance(x, tuple) else x
        chosen = kernels.choose(self.kind, self.backend, first, self._parameters.values())
        if chosen != "cpu" and self.weight_dtype != "float32":
            raise BackendError(
                f"weight_dtype '{self.weight_dtype}' needs backend 'cpu' and float32 input; "
                f"here runs backend '{chosen}'"
            )
        return chosen

    def _spec(self) -> Spec:
        dropout = float(self.dropout) if self.training else 0.0
        return Spec(
            self.kind, self.num_layers, self.bias, self.bidirectional, dropout, self.weight_dtype
        )

    def _flat(self) -> list[Tensor]:
        """The weights by name, so that functional_call and parametrizations are seen."""
        return [getattr(self, name) for name in self._names]

    def _start(self, x: Tensor, initial: State) -> State:
        rows, sizes = self._state_sizes()
        zeros = tuple(x.new_zeros(rows, x.shape[1], size) for size in sizes)
        if initial is not None:
            parts = initial if isinstance(initial, tuple) else (initial,)
            zeros = tuple(p.expand_as(z) for p, z in zip(parts, zeros, strict=True))
        return zeros if len(zeros) > 1 else zeros[0]

    def _state_sizes(self) -> tuple[int, list[int]]:
        """(L * D, units of each part of the state)."""
        sizes = [self.hidden_size] * len(self.cell.parts)
        return self.num_layers * (2 if self.bidirectional else 1), [
            self.proj_size or self.hidden_size,
            *sizes[1:],
        ]

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


def is_symbol(x: Any) -> bool:
    """What torch.fx.symbolic_trace puts in place of tensors."""
    return isinstance(x, torch.fx.Proxy)


def as_leaf(layer: nn.Module, x: Any, **options: Any) -> Any:
    """In torch.fx.symbolic_trace a layer is one call, as torch's own are."""
    given = {name: value for name, value in options.items() if value is not None}
    return x.tracer.create_proxy("call_module", x.tracer.path_of_module(layer), (x,), given)


class RNN(_Recurrent):
    """``S_t = σ(X_t W_x + O_{t-1})``, ``O_t = S_t W_rec``: torch.nn.RNN with reset and step.

    A torch.nn.RNNBase, but not a torch.nn.RNN, which torch.compile refuses.

    Args:
        input_size: numbers of an input.
        hidden_size: units of a layer.
        num_layers: layers on top of each other.
        nonlinearity: "tanh", "relu" or "identity" (the linear recurrence).
        bias: whether there are biases.
        batch_first: sequences are ``[B, T, …]`` instead of ``[T, B, …]``; not states.
        dropout: between layers, while training.
        bidirectional: whether each layer runs in both directions.
        weight_dtype: "bfloat16" rounds weights in the products of backend "cpu" (see
            `kernels.Spec`).
        backend: "auto" or a name of `kernels.backends`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        BackendError: if a named backend does not run here.
        SettingError: for a nonlinearity or weight_dtype that does not exist.
    """

    parent = nn.RNN

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, weight_dtype: str | torch.dtype = "float32",
        backend: str = "auto", device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu", "identity"):
            raise SettingError(f"nonlinearity '{nonlinearity}' is not tanh, relu or identity")
        self.nonlinearity = nonlinearity
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self._build(sizes, weight_dtype, backend, device=device, dtype=dtype)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"rnn_{self.nonlinearity}"


class GRU(_Recurrent):
    """torch.nn.GRU with reset and step (Cho et al. 2014).

    A torch.nn.RNNBase, but not a torch.nn.GRU, which torch.compile refuses.

    Arguments as for `RNN`.
    """

    parent = nn.GRU
    kind = "gru"


class LSTM(_Recurrent):
    """torch.nn.LSTM with reset and step (Hochreiter & Schmidhuber 1997).

    A torch.nn.RNNBase, but not a torch.nn.LSTM, which torch.compile refuses.

    Arguments as for `RNN`; proj_size as in torch.nn, on torch's own code.
    """

    parent = nn.LSTM
    kind = "lstm"
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, weight_dtype: str | torch.dtype = "float32", backend: str = "auto",
        device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self._build((*sizes, proj_size), weight_dtype, backend, device=device, dtype=dtype)


class LiGRU(_Recurrent):
    """Light GRU: ``h' = z h + (1 - z) relu(W_n x + U_n h + b_n)``, no reset gate.

    Ravanelli et al. (2018), "Light Gated Recurrent Units for Speech Recognition", IEEE TETCI 2(2),
    with biases instead of batch normalisation. ``weight_ih_l0`` ``[2H, I]``, ``weight_hh_l0``
    ``[2H, H]`` and both biases ``[2H]`` as in torch.nn, rows of z first. Arguments as for `RNN`.
    """

    kind = "li_gru"
