"""torch's own cases for its RNN, GRU and LSTM, and what its test suite does with them, on ours.

The cases are `module_db` of torch.testing._internal.common_modules; the tests are named as in
torch's test_modules.py.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.native_cases import flat, gradients
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.common_modules import ModuleInfo, ModuleInput, module_db

import throughtime as tt
from throughtime import state as states
from throughtime.kernels import native

OURS = {nn.RNN: tt.RNN, nn.GRU: tt.GRU, nn.LSTM: tt.LSTM}
INFOS = {info.module_cls.__name__: info for info in module_db if info.module_cls in OURS}
DTYPES = [torch.float32, torch.float64]
pytestmark = [
    pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"]),
    pytest.mark.parametrize("backend", ["auto", "reference"]),
    pytest.mark.usefixtures("device"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous"),
]


def cases(
    name: str, backend: str, dtype: torch.dtype = torch.float64, training: bool = True
) -> Iterator[tuple[ModuleInput, Any, tuple[Any, ...]]]:
    """Each case, our module of it, and its input."""
    torch.manual_seed(0)
    info: ModuleInfo = INFOS[name]
    device = torch.empty(0).device.type
    result = info.module_inputs_func(
        info, device=device, dtype=dtype, requires_grad=True, training=training,
        with_packed_sequence=True,
    )  # fmt: skip
    assert len(result) >= 16
    for one in result:
        if one.constructor_input.kwargs.get("proj_size") and backend == "reference":
            continue  # these run on torch alone
        made = OURS[info.module_cls](
            *one.constructor_input.args, **one.constructor_input.kwargs, backend=backend
        )
        assert not one.forward_input.kwargs
        yield one, made.to(dtype).train(training), one.forward_input.args


def leaves(*arguments: Any) -> list[Tensor]:
    """The tensors of an input: padded or packed, with or without a state."""
    result = []
    for one in arguments:
        one = one.data if isinstance(one, PackedSequence) else one
        result += list(states.leaves(one))
    return result


def equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)  # torch's own tolerances


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(name: str, backend: str, dtype: torch.dtype, training: bool) -> None:
    """The reference of torch's case, and torch's own module with our weights."""
    for case, module, arguments in cases(name, backend, dtype, training):
        actual = flat(module(*arguments))
        if not isinstance(arguments[0], PackedSequence):
            equal(actual, flat(case.reference_fn(module, *arguments)))
        theirs = INFOS[name].module_cls(**case.constructor_input.kwargs).to(dtype).train(training)
        theirs.load_state_dict(module.state_dict())
        equal(actual, flat(theirs(*arguments)))


def test_factory_kwargs(name: str, backend: str) -> None:
    for case, module, _ in cases(name, backend):
        for where, dtype in (("meta", torch.float32), ("cpu", torch.float64)):
            made = type(module)(
                **case.constructor_input.kwargs, backend=backend, device=where, dtype=dtype
            )
            assert list(made.state_dict()) == list(module.state_dict())
            assert all(p.device.type == where for p in made.parameters())
            assert all(p.dtype == dtype for p in made.parameters())


def test_repr_and_pickle(name: str, backend: str) -> None:
    for _, module, arguments in cases(name, backend):
        assert repr(module).startswith(f"{name}(2, ")
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
        equal(flat(again(*arguments)), flat(module(*arguments)))
        twin = copy.deepcopy(module)
        for one in twin.parameters():
            one.data.zero_()
        twin.load_state_dict(module.state_dict())
        equal(flat(twin(*arguments)), flat(module(*arguments)))


def test_nothing_given_is_changed(name: str, backend: str) -> None:
    for _, module, arguments in cases(name, backend):
        given = [*leaves(*arguments), *module.parameters()]
        before = [one.detach().clone() for one in given]
        gradients(flat(module(*arguments)), given)
        assert all(map(torch.equal, given, before))


def sparse(tensor: Tensor) -> Tensor:
    """The same numbers, every second one in memory."""
    wide = tensor.detach().repeat_interleave(2, -1)
    return wide[..., ::2].requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize("training", [True, False])
def test_non_contiguous_tensors(name: str, backend: str, training: bool) -> None:
    for _, module, arguments in cases(name, backend, training=training):
        if isinstance(arguments[0], PackedSequence):
            continue
        apart = tuple(states.apply(sparse, one) for one in arguments)
        assert not apart[0].is_contiguous()
        results = []
        for given in (arguments, apart):
            outputs = flat(module(*given))
            results.append([*outputs, *gradients(outputs, [*leaves(*given), *module.parameters()])])
        equal(*results)


@pytest.mark.parametrize("second", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_grad(name: str, backend: str, second: bool) -> None:
    """gradcheck of inputs, state and weights; of the reference its gradients, too."""
    if second and backend != "reference" and torch.empty(0).is_cuda:
        pytest.skip("cuDNN gives first derivatives only")
    checked = 0
    for _, module, arguments in cases(name, backend):
        if isinstance(arguments[0], PackedSequence):
            continue
        names, weights = zip(*module.named_parameters(), strict=True)
        tensors = leaves(*arguments)

        def run(
            *given: Tensor, module: Any = module, names: Any = names, count: int = len(tensors)
        ) -> tuple[Tensor, ...]:
            x, *state = given[:count]
            hx = (tuple(state) if name == "LSTM" else state[0]) if state else None
            named = dict(zip(names, given[count:], strict=True))
            return tuple(flat(torch.func.functional_call(module, named, (x, hx))))

        check = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
        assert check(run, (*tensors, *weights), fast_mode=True)
        checked += 1
    assert checked >= 4


def test_the_kernels_are_what_runs(name: str, backend: str) -> None:
    (_, module, arguments), *_ = cases(name, backend)
    chosen = module._choose(arguments[0])
    on_cpu = arguments[0].device.type == "cpu" and native.available()
    assert chosen == ({True: "cpu", False: "torch"}[on_cpu] if backend == "auto" else "reference")
