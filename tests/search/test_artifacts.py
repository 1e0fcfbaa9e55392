"""Work that is done once."""

from __future__ import annotations

from pathlib import Path

from throughtime.search.artifacts import Artifacts


def test_work_is_done_once_where_there_is_a_folder(tmp_path: Path) -> None:
    done: list[int] = []

    def work() -> list[int]:
        done.append(len(done))
        return list(done)

    store = Artifacts(tmp_path).within("ar(3) of Sales")
    assert store.cached("orders.json", work) == [0]
    assert store.cached("orders.json", work) == [0]
    assert (tmp_path / "ar-3-of-sales" / "orders.json").exists()
    store.drop("orders.json", "never-there.json")
    assert store.cached("orders.json", work) == [0, 1]


def test_without_a_folder_nothing_is_kept() -> None:
    store = Artifacts()
    assert store.within("gru").path("result.safetensors") is None
    assert [store.cached("x.json", lambda: 1), store.cached("x.json", lambda: 2)] == [1, 2]
    store.drop("x.json")
