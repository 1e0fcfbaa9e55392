"""What can be cut along time, in every shape, and what cannot, in one line each."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from support.batches import KINDS, Cut, Example, Tagger
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils import _pytree as pytree

import throughtime as tt
from throughtime.errors import SettingError
from throughtime.gradflow import along_time
from throughtime.gradflow.batches import Segment, fold, join

X, Y = torch.arange(24.0).reshape(8, 3), torch.arange(8) + 100


@pytest.mark.parametrize("kind", KINDS)
def test_slices_have_the_structure_of_the_whole(kind: str) -> None:
    make, parts = KINDS[kind]
    whole = make(X, X + 100)
    batch = along_time(whole)
    assert len(batch) == 8
    cut = batch[2:5]
    x, y = parts(cut)
    assert torch.equal(x, X[2:5])
    assert torch.equal(y, X[2:5] + 100)
    if kind != "dataset":
        assert type(cut) is type(whole)
    segment = Segment(Segment(batch, 1, 7), 2, 5)
    assert (segment.begin, segment.end, len(segment)) == (3, 6, 3)
    assert torch.equal(parts(segment[0:9])[0], X[3:6])


def test_a_pair_is_no_two_steps() -> None:
    assert len(along_time((X, Y))) == 8
    assert len(along_time([X])) == 8
    assert along_time({"x": X, "mask": None})[0:2]["mask"] is None


REFUSED: list[tuple[Any, str]] = [
    ((X, Y[:7]), r"batch\[0\] has 8 steps along dim 0, batch\[1\] has 7; time is dim 0 of each"),
    ({"a": [X, {"b": Y[:1]}]}, r"batch\['a'\]\[0\] has 8 .*, batch\['a'\]\[1\]\['b'\] has 1"),
    (Example(X, "text"), r"^batch(\.y|\[1\]) is a str, which cannot be cut along time: every part"),
    ({"x": X, "scale": 2}, r"batch\['scale'\] is an int, which .* bind what all steps share"),
    ((X, torch.tensor(1.0)), r"batch\[1\] is a tensor without dimensions"),
    ([0.0, 1.0], r"batch\[0\] is a float, which cannot be cut"),
    ((), "the batch holds no tensors"),
    ({"x": None}, "the batch holds no tensors"),
    (torch.tensor(1.0), r"without dimensions; time is dim 0: \[T, B, \.\.\.\]"),
    (3, "a batch of type int cannot be cut along time: give a tensor"),
    (None, "a batch of type NoneType cannot be cut"),
    ("text", "a batch of type str cannot be cut"),
    (UserDict(x=X), "a batch of type UserDict cannot be cut"),
    (iter([X]), "a batch of type list_iterator cannot be cut"),
    (pack_padded_sequence(X[:, :2, None], torch.tensor([8, 8])), "a PackedSequence cannot be cut"),
]


@pytest.mark.parametrize(("batch", "message"), REFUSED)
def test_what_cannot_be_cut_is_said_in_one_line(batch: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        along_time(batch)
    assert "\n" not in str(caught.value)


def test_slices_that_fail_are_said() -> None:
    class Frames:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, step: int) -> Tensor:
            return {0: X, 1: X, 2: X, 3: X}[step]

    with pytest.raises(SettingError, match=r"batch\[0:1\] of a Frames is not steps of it"):
        tt.bptt.Full().backward(lambda b, s: (b.sum(), s), Frames(), None)


def test_steps_become_rows_and_back() -> None:
    whole = {"x": X, "pair": (X + 1, None), "own": Cut(X, X + 2)}
    rows: Any = fold(whole, along_time_of(whole, 0, 1), slice(1, None, 3))
    assert torch.equal(rows["x"], torch.cat([X[1], X[4], X[7]])[None])
    assert torch.equal(rows["own"].y, rows["x"] + 2)
    assert torch.equal(rows["pair"][0], rows["x"] + 1)
    assert rows["pair"][1] is None
    beside: Any = join([along_time_of(whole, 0, 2), along_time_of(whole, 4, 6)])
    assert torch.equal(beside["x"], torch.cat([X[0:2], X[4:6]], 1))
    assert torch.equal(beside["own"].y, beside["x"] + 2)
    assert beside["pair"][1] is None
    assert fold((X, "text"), (X[:1], "t"), slice(None)) is None
    assert join([Y[:2], Y[2:4]]) is None  # no rows
    assert join([(X[:2],), [X[:2]]]) is None  # of another structure


def along_time_of(batch: Any, begin: int, end: int) -> Any:
    """The steps of a batch that holds an object of one's own beside tensors."""
    x, pair, own = (part[begin:end] for part in (batch["x"], batch["pair"][0], batch["own"]))
    return {"x": x, "pair": (pair, None), "own": own}


@pytest.mark.parametrize("kind", KINDS)
def test_every_tool_takes_every_kind(kind: str) -> None:
    """The same numbers as for a tensor of the same data, and Σ_k G_k as by plain autograd."""
    net, plain = Tagger(kind), Tagger("tensor")
    params, same = (dict(one.named_parameters()) for one in (net, plain))
    args, known = (net.loss, net.batch, net.state), (plain.loss, plain.batch, plain.state)
    _, _, exact = net.exact()
    book = tt.gradflow.ledger(*args, params, tensors=True)
    for name, gradient in zip(params, exact, strict=True):
        torch.testing.assert_close(book.gradient(name).sum(0), gradient, rtol=1e-10, atol=1e-10)
    tools: dict[str, Any] = {
        "ledger": lambda a, p: tt.gradflow.ledger(*a, p, 6).to_json(),
        "ledger, own parameters": lambda a, p: tt.gradflow.ledger(*a, max_lag=3).norms,
        "adjoints": lambda a, p: tt.gradflow.adjoints(*a),
        "jacobian_norms": lambda a, p: tt.gradflow.jacobian_norms(*a, times=3).values,
        "step_radius": lambda a, p: tt.gradflow.step_radius(*a, times=3),
        "lyapunov": lambda a, p: tt.gradflow.lyapunov(*a, num=2).rows,
        "saturation": lambda a, p: tt.gradflow.saturation(*a, p),
        "examine": lambda a, p: tt.gradflow.examine(*a, p, 6).to_json(),
        "adaptive": lambda a, p: repr(tt.bptt.Adaptive(0.01).truncation(*a)),
        "plan": lambda a, p: tt.bptt.Checkpointed(slots=4).plan(*a),
    }
    for name, tool in tools.items():
        actual, expected = tool(args, params), tool(known, same)
        numbers, words = leaves_of(actual)
        known_numbers, known_words = leaves_of(expected)
        assert words == known_words, name
        assert len(numbers) > 0 or name in ("adaptive", "plan")
        torch.testing.assert_close(
            numbers,
            known_numbers,
            rtol=1e-10,
            atol=1e-10,
            equal_nan=True,
            msg=lambda message, name=name: f"{name}: {message}",
        )


def leaves_of(value: Any) -> tuple[list[Any], list[Any]]:
    """The numbers and tensors of a result, and all else that it is made of."""
    leaves = pytree.tree_leaves(value)
    is_number = [isinstance(leaf, (float, Tensor)) for leaf in leaves]
    numbers = [leaf for leaf, one in zip(leaves, is_number, strict=True) if one]
    return numbers, [leaf for leaf, one in zip(leaves, is_number, strict=True) if not one]
