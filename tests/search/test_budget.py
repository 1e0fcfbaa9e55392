"""A time limit shared out, by a clock that the test turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from throughtime import files
from throughtime.search.budget import CERTIFICATE_SECONDS, LEAST_SECONDS, TimeBudget


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_limit_nothing_is_decided_by_the_clock(tmp_path: Path) -> None:
    budget = TimeBudget(None, tmp_path / "budget.json", Clock())
    assert budget.certificate() == CERTIFICATE_SECONDS
    assert budget.closed_form_steps is None
    assert budget.held_out_steps is None
    assert budget.lag_network("mlp(20)") is None
    assert budget.network("gru", [1.0]) is None
    assert budget.evaluation() is None
    budget.keep()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [10.0, 60.0, 600.0, 7200.0])
def test_shares_that_are_used_up_fill_the_limit_and_no_more(limit: float) -> None:
    clock = Clock()
    budget = TimeBudget(limit, None, clock)
    assert LEAST_SECONDS <= budget.certificate() <= CERTIFICATE_SECONDS
    clock.now += budget.certificate()
    weights = [1.0, 2.0, 3.0]
    for decide in (
        lambda: budget.lag_network("mlp(20)"),
        lambda: budget.network("rnn", weights),
        lambda: budget.network("gru", weights[1:]),
        lambda: budget.network("lstm", weights[2:]),
        budget.evaluation,
    ):
        share = decide()
        assert share is not None
        assert share > 0
        clock.now += share
    assert budget.spent == pytest.approx(limit)


def test_networks_share_what_is_left_by_weight() -> None:
    clock = Clock()
    budget = TimeBudget(120.0, None, clock)
    clock.now += 20.0
    # A sixth of the limit is kept for the evaluation: 80 seconds are left.
    assert budget.network("rnn", [1.0, 2.0, 3.0]) == pytest.approx(80 / 6)
    clock.now += 80 / 6
    assert budget.network("gru", [2.0, 3.0]) == pytest.approx(80 / 3)


def test_what_was_decided_is_kept_and_never_decided_again(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "budget.json"
    budget = TimeBudget(60.0, path, clock)
    clock.now += 10.0
    share = budget.network("gru", [1.0, 1.0])
    clock.now += 15.0
    assert budget.network("gru", [1.0, 1.0]) == share
    budget.keep()
    clock.now += 1000.0  # the run was interrupted, and nobody counts that
    resumed = TimeBudget(60.0, path, clock)
    assert resumed.spent == pytest.approx(25.0)
    assert resumed.network("gru", [1.0, 1.0]) == share
    assert resumed.network("lstm", [1.0]) == pytest.approx(60 - 10 - 25)


def test_what_is_looked_at_grows_with_the_limit_and_not_with_the_clock() -> None:
    clock = Clock()
    short, long = TimeBudget(10.0, None, clock), TimeBudget(600.0, None, clock)
    before = short.closed_form_steps, short.held_out_steps
    assert (long.closed_form_steps, long.held_out_steps) == (60 * before[0], 60 * before[1])  # type: ignore[operator]
    clock.now += 9.0
    assert (short.closed_form_steps, short.held_out_steps) == before


def test_a_limit_that_is_gone_leaves_time_to_evaluate_and_for_no_network() -> None:
    clock = Clock()
    budget = TimeBudget(10.0, None, clock)
    clock.now += 50.0
    assert budget.network("gru", [1.0]) == 0.0
    assert budget.evaluation() == pytest.approx(10 / 12)


@pytest.mark.parametrize("damage", [b"", b'{"spent": 3}', None])
def test_decisions_that_are_damaged_are_told_of_and_made_anew(
    tmp_path: Path, damage: bytes | None
) -> None:
    path, events, clock = tmp_path / "budget.json", list[dict[str, Any]](), Clock()
    decided = TimeBudget(60.0, path, clock).network("gru", [1.0])
    if damage is None:  # a digest of its own, and nonsense
        files.write_json(path, {"spent": 0, "shares": {"gru": "long"}})
    else:
        path.write_bytes(damage)
    budget = TimeBudget(60.0, None, clock).kept_in(path, events.append)
    assert [event["event"] for event in events] == ["note"]
    assert events[0]["message"].startswith(f"{path} is damaged (")
    assert budget.network("gru", [1.0]) == decided
    assert TimeBudget(60.0, path, clock).network("gru", [9.0]) == decided
