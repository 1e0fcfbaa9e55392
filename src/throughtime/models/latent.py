"""Latent autoregression: ``X_t ~ P(X_t | X_{t-1}, H_t)``, ``H_t = Net(H_{t-1}, X_{t-1})``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime import state as states
from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.emissions import Categorical, Distribution, Emission
from throughtime.errors import SettingError, known_options
from throughtime.layers import LAYERS
from throughtime.models.base import SequenceModel
from throughtime.models.context import Start
from throughtime.models.encoders import SymbolEncoder, encoder, known_covariates
from throughtime.models.native import cross_entropy
from throughtime.models.native import sampler as sampling
from throughtime.models.native.sampler import Sampler
from throughtime.models.predictors import marginal_values
from throughtime.state import State, Traced


@dataclass(frozen=True)
class Dropout:
    """Shares of what is dropped while a network is trained.

    Attributes:
        outputs: of each layer's output, between layers and before the head.
        inputs: of what the network reads.
        recurrent: of the recurrent matrices themselves, drawn anew for each call (Merity et al.
            2018).
    """

    outputs: float = 0.0
    inputs: float = 0.0
    recurrent: float = 0.0


class LatentAutoregressive(SequenceModel):
    """A recurrent state summarises the whole past, and an emission follows from it.

    ``X_t ~ P(X_t | X_{t-1}, H_t)``, ``H_t = Net(H_{t-1}, X_{t-1})``. The initial state is learned;
    recurrent matrices start orthogonal (Saxe et al. 2014).

    Args:
        cell: "rnn" (tanh), "rnn_relu", "rnn_identity", "gru", "lstm", "li_gru" or "mingru"
            (trained by a parallel scan).
        hidden_size: units of each member.
        num_layers: layers on top of each other.
        emission: how a step is distributed given the state.
        dropout: while training: a share, between layers and before the head, or a `Dropout`.
        members: independent networks trained side by side in one block-diagonal recurrence; their
            distributions are averaged (a deep ensemble, Lakshminarayanan et al. 2017).
        embedding_size: of a symbol's learned vector; chosen by the size of the network if None.
        time_scale: expected length of dependencies in steps: gate biases start so that memories of
            1 … time_scale steps are spread over the units (chrono initialisation, Tallec & Ollivier
            2018).
        covariates: columns known beforehand that enter each step.
        identities: names of the training series, each of which gets a learned vector (an unknown
            series gets the zero vector).
        num_differencing: 1 if the data were differenced, so that the first value of a sequence is
            an initial value with a distribution of its own.
        backend: as for `tt.RNN`.

    Raises:
        SettingError: for a cell that does not exist, or options that do not go together.
        BackendError: if a named backend does not run here.
    """

    @known_options
    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        *,
        emission: Emission,
        dropout: float | Dropout = 0.0,
        members: int = 1,
        embedding_size: int | None = None,
        time_scale: float | None = None,
        covariates: int = 0,
        identities: tuple[str, ...] = (),
        num_differencing: int = 0,
        backend: str = "auto",
    ) -> None:
        if cell not in LAYERS:
            raise SettingError(f"cell '{cell}' is not one of: {', '.join(LAYERS)}")
        dropout = dropout if isinstance(dropout, Dropout) else Dropout(dropout)
        if cell == "mingru" and dropout.recurrent:
            raise SettingError("mingru has no recurrent matrix for recurrent dropout")
        if num_differencing > 1:
            raise SettingError("a latent model takes values differenced once, at lag 1")
        super().__init__(emission, num_differencing)
        self.cell, self.hidden_size, self.num_layers = cell, hidden_size, num_layers
        self.members, self.dropout, self.time_scale = members, dropout, time_scale
        self.covariates, self.identities = covariates, tuple(identities)
        self.embedding_size = embedding_size or min(hidden_size * members, 64)
        self.encoder = encoder(emission, self.embedding_size)
        self.identity = nn.Embedding(len(identities), 8) if identities else None
        width = self.encoder.size + covariates + (8 if identities else 0)
        hidden = hidden_size * members
        between = dropout.outputs if num_layers > 1 else 0.0
        self.recurrent: Any = LAYERS[cell](
            width, hidden, num_layers, dropout=between, backend=backend
        )
        self.start = nn.Parameter(torch.zeros(self.recurrent.state_parts, num_layers, 1, hidden))
        self.head_weight = nn.Parameter(torch.empty(members, emission.num_parameters, hidden_size))
        self.head_bias = nn.Parameter(torch.zeros(members, emission.num_parameters))
        self._initialise()

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "latent",
            "cell": self.cell,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "emission": self.emission.to_json(),
            "dropout": self.dropout.outputs,
            "input_dropout": self.dropout.inputs,
            "recurrent_dropout": self.dropout.recurrent,
            "members": self.members,
            "embedding_size": self.embedding_size,
            "time_scale": self.time_scale,
            "covariates": self.covariates,
            "identities": list(self.identities),
            "num_differencing": self.num_differencing,
        }

    def begin(self, train: Sequences) -> None:
        """Starts the head at the constant model of the training data."""
        super().begin(train)
        marginal = self.emission.initial(marginal_values(train))
        with torch.no_grad():
            self.head_bias.copy_(marginal.expand_as(self.head_bias))

    def initial_state(self, batch_size: int) -> State:
        parts = tuple(part.expand(-1, batch_size, -1) for part in self.start)
        return parts if len(parts) > 1 else parts[0]

    def members_distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        y, state = self._outputs(batch, state)
        raw = self._head(y)
        if self.num_differencing and batch.initial is not None:
            initial = batch.initial[(..., *(None,) * (raw.dim() - 2))]
            raw = torch.where(initial, self.initial_raw, raw)
        return self.emission.distribution(raw), state

    def read(self, batch: Batch, state: State) -> State:
        return self._outputs(batch, state)[1]

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """As in the base class; symbols of small alphabets have head and loss in one pass."""
        if not isinstance(self.emission, Categorical) or self.num_differencing or not self._fused():
            return super().loss(batch, state)
        y, state = self._outputs(batch, state)
        if not cross_entropy.fits(y, self.head_weight[0]):
            return self._loss_of(self.emission.distribution(self._head(y)), batch), state
        y = self._dropped(y)
        rows, target = y.flatten(0, 1), batch.x.flatten()
        scale = batch.weight.flatten() / self.members
        parts = zip(rows.chunk(self.members, -1), self.head_weight, self.head_bias, strict=True)
        total = [cross_entropy.nats(part, w, b, target, scale) for part, w, b in parts]
        return torch.stack(total).sum() if self.members > 1 else total[0], state

    def _dropped(self, y: Tensor) -> Tensor:
        share = self.dropout.outputs
        return F.dropout(y, share, self.training) if share else y

    def _fused(self) -> bool:
        return self.recurrent.backend in ("auto", "cpu")

    def _outputs(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """What the head reads at every step."""
        x = self._inputs(batch.previous, batch.start, batch.covariates, batch.series)
        return self._recur(x, state, batch.reset, self.initial_state(1))

    def members_step(
        self,
        previous: Tensor | None,
        state: State,
        covariates: Tensor | None,
        series: Tensor | None,
    ) -> tuple[Distribution, State]:
        rows = next(states.leaves(state)).shape[1]
        start = torch.full((rows,), previous is None, device=self.start.device)
        if previous is None:
            tail = () if self.emission.symbols else (self.emission.columns,)
            kind = torch.int64 if self.emission.symbols else self.start.dtype
            previous = torch.zeros(rows, *tail, dtype=kind, device=start.device)
        x = self._inputs(previous, start, covariates, series)
        y, state = self._recur_step(x, state)
        raw = self._head(y)
        if self.num_differencing and bool(start.any()):
            raw = self.initial_raw.expand_as(raw)
        return self.emission.distribution(raw), state

    def _draw(self, start: Start, length: int | None) -> Iterator[Tensor]:
        """As in the base class; whole loops in native code where it knows the distribution."""
        sampler = self._sampler(start)
        return super()._draw(start, length) if sampler is None else sampler.blocks(length)

    def _sampler(self, start: Start) -> Sampler | None:
        """The native loop that draws these paths; None where the loop in Python has to."""
        head, recurrent = sampling.head_of(self.emission), self.recurrent
        if (
            head is None
            or recurrent.backend not in ("auto", "cpu")
            or recurrent.weight_dtype != "float32"
            or tuple(recurrent._parameters) != recurrent._names  # some are computed for each call
        ):
            return None
        codes = self.start.new_empty(0, self.encoder.size)  # no rows for values
        if isinstance(self.encoder, SymbolEncoder):
            codes = self.encoder.embedding.weight
        initial = self.initial_raw if self.num_differencing and start.previous is None else None
        network = sampling.Network(
            recurrent.kind, self._member_layers(), codes, self.head_weight, self.head_bias, initial
        )
        if not sampling.runs(network):
            return None
        known = identities = None
        if self.covariates:
            known = known_covariates(self.covariates, start.covariates, self.start)
        if self.identity is not None:
            unknown = torch.full((start.num_paths,), -1)
            identities = self._identities(unknown if start.series is None else start.series)
        paths = sampling.Paths(
            start.num_paths, start.root, start.state, start.previous, known, identities
        )
        return Sampler(head, network, paths, start.temperature, start.top_p)

    def _member_layers(self) -> list[Tensor]:
        """The weights of each layer of each member, cut out of the block-diagonal ones."""
        flat: list[Tensor] = self.recurrent._flat()
        if self.members == 1:
            return flat
        layers, size = [], self.hidden_size
        for m in range(self.members):
            for i, weight in enumerate(flat):
                rows = weight.unflatten(0, (-1, self.members, size))[:, m].flatten(0, 1)
                inner = rows.dim() == 2 and i > 0  # all but the first layer's inputs
                layers.append(rows[:, m * size : (m + 1) * size] if inner else rows)
        return layers

    def _identities(self, series: Tensor) -> Tensor:
        """The learned vector of each series, zeros for an unknown one (-1)."""
        assert self.identity is not None
        vector: Tensor = self.identity(series.clamp(min=0))
        return vector * (series >= 0).unsqueeze(-1)

    def num_parameters(self) -> int:
        masked = sum(
            int((self._mask(weight) == 0).sum())
            for name, weight in self.recurrent.named_parameters()
            if self.members > 1 and not name.startswith("bias") and name != "weight_ih_l0"
        )
        return super().num_parameters() - masked

    def _inputs(
        self, previous: Tensor, start: Tensor, covariates: Tensor | None, series: Tensor | None
    ) -> Tensor:
        x = self.encoder(previous, start)
        if self.dropout.inputs:
            x = F.dropout(x, self.dropout.inputs, self.training)
        parts = [x]
        if self.covariates:
            parts.append(known_covariates(self.covariates, covariates, x))
        if self.identity is not None:
            known = torch.full_like(start, -1, dtype=torch.int64) if series is None else series
            parts.append(self._identities(known))
        return torch.cat(parts, -1) if len(parts) > 1 else x

    def _recur(
        self, x: Tensor, state: State, reset: Tensor, initial: State
    ) -> tuple[Tensor, State]:
        restart = reset if bool(reset.any()) else None
        if restart is None and not isinstance(state, Traced):
            initial = None
        arguments = (x, state, restart, initial)
        if self.members == 1 and not (self.training and self.dropout.recurrent):
            return self.recurrent(*arguments)
        weights = {
            name: self._blocks(name, weight) for name, weight in self.recurrent.named_parameters()
        }
        result: tuple[Tensor, State] = torch.func.functional_call(
            self.recurrent, weights, arguments
        )
        return result

    def _recur_step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if self.members == 1 or not torch.is_grad_enabled():
            result: tuple[Tensor, State] = self.recurrent.step(x, state)
            return result
        # The zeros between members are part of the model, not weights: no gradient may fill them.
        go_on = torch.zeros(1, len(x), dtype=torch.bool, device=x.device)
        y, state = self._recur(x.unsqueeze(0), state, go_on, None)
        return y[0], state

    def _blocks(self, name: str, weight: Tensor) -> Tensor:
        """The weights in use: block-diagonal, so that members stay apart, and under dropout."""
        if name.startswith("bias") or name == "weight_ih_l0":
            return weight
        if self.members > 1:
            weight = weight * self._mask(weight)
        if self.dropout.recurrent and name.startswith("weight_hh"):
            weight = F.dropout(weight, self.dropout.recurrent, self.training)
        return weight

    def _mask(self, weight: Tensor) -> Tensor:
        block = torch.block_diag(
            *[weight.new_ones(self.hidden_size, self.hidden_size)] * self.members
        )
        return block.repeat(weight.shape[0] // block.shape[0], 1)

    def _head(self, y: Tensor) -> Tensor:
        y = self._dropped(y)
        if self.members == 1:
            raw = F.linear(y, self.head_weight[0], self.head_bias[0])
        else:
            parts = y.unflatten(-1, (self.members, self.hidden_size))
            raw = torch.einsum("...mh,mph->...mp", parts, self.head_weight) + self.head_bias
        return raw.to(self.head_bias.dtype)  # distributions are evaluated in full precision

    @torch.no_grad()
    def _initialise(self) -> None:
        size = self.hidden_size
        for name, weight in self.recurrent.named_parameters():
            if name.startswith("bias"):
                weight.zero_()
            elif name.startswith("weight_ih"):
                fan_in = weight.shape[1] if name.endswith("_l0") else size
                weight.normal_(std=fan_in**-0.5)
                weight.mul_(1.0 if name.endswith("_l0") else self._mask(weight))
            else:
                weight.zero_()
                for gate in weight.split(size * self.members):
                    for m in range(self.members):
                        block = gate[m * size : (m + 1) * size, m * size : (m + 1) * size]
                        nn.init.orthogonal_(block)
        self.head_weight.normal_(std=0.1 * size**-0.5)
        for layer in range(self.num_layers):
            sides = [f"bias_{side}_l{layer}" for side in ("hh", "ih")]
            biases = [getattr(self.recurrent, s) for s in sides if hasattr(self.recurrent, s)]
            self._gate_bias(biases[0])

    def _gate_bias(self, bias: Tensor) -> None:
        """Chrono initialisation: memories of 1 … time_scale steps, spread over each member."""
        keep, admit = self.recurrent.memory_gates
        if keep is None and admit is None:
            return
        gates = bias.split(self.hidden_size * self.members)
        if self.time_scale is None:  # remember a little by default
            if keep is not None:
                gates[keep].fill_(1.0)
            else:
                gates[admit].fill_(-1.0)
            return
        longest = math.log(max(self.time_scale, 2.0))
        spread = torch.linspace(0.0, longest, self.hidden_size)
        logits = torch.log(spread.exp().clamp(min=1.05) - 0.05).repeat(self.members)
        if keep is not None:
            gates[keep].copy_(logits)
        if admit is not None:
            gates[admit].copy_(-logits)
