"""The demonstration: what it measures, who learns, and the page and picture that show it."""

import io
import json

import pytest
import torch
from support.documentation import documented, fields

from throughtime import bptt, gradflow
from throughtime.cli import gradient_demo as demo
from throughtime.cli import main
from throughtime.cli.gradient_demo import Network, Recaller, recall


@pytest.fixture
def quick(monkeypatch):
    """One network that forgets and one that does not, trained for as long as the second needs."""
    chosen = (Network("RNN", "rnn"), Network("GRU, chrono start", "gru", "chrono"))
    cut = Network("cut", "gru", "chrono", demo.SHORT)
    monkeypatch.setattr(demo, "NETWORKS", (*chosen, cut))
    monkeypatch.setattr(demo, "UPDATES", 150)


def test_the_answer_is_the_number_shown_first():
    batch = recall(0, 0)
    assert batch.shape == (demo.LAG + 1, demo.ROWS, 4)
    torch.testing.assert_close(batch[0, :, 0], 2 * batch[-1, :, 3] - 1)
    assert not batch[1:, :, 0].any()
    assert batch[:, :, 2].sum() == demo.ROWS
    torch.testing.assert_close(batch, recall(0, 0), rtol=0, atol=0)
    assert not torch.equal(batch, recall(0, 1))


def test_chrono_gates_keep_memories_of_one_step_to_the_whole_lag():
    layer = Recaller("lstm", "chrono").layer
    kept = layer.bias_hh_l0.split(demo.HIDDEN)[1].detach().sigmoid()
    memory = 1 / (1 - kept)
    assert float(memory.min()) < 1.2
    assert abs(float(memory.max()) - demo.LAG) < 1


@pytest.mark.slow
def test_the_command_shows_who_learns_and_why(quick, tmp_path, capsys):
    main(["demo", "gradients", "-o", str(tmp_path / "page.html"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert documented("demo") == fields(result)
    plain, gated, cut = result["networks"]
    assert not plain["learned"]
    assert gated["learned"]
    assert not cut["learned"]
    assert plain["arrives"] < 1e-15 < 1e-4 < gated["arrives"]
    assert plain["reach"] < 10 < 50 < gated["reach"]
    assert cut["arrives"] == 0
    assert cut["by_lag"][: demo.SHORT] == gated["by_lag"][: demo.SHORT]
    assert not any(cut["by_lag"][demo.SHORT :])
    assert abs(sum(gated["by_lag"]) - 1) < 1e-9
    assert "vanishes" in result["verdict"]
    assert "These see that far, and learn: GRU, chrono start." in result["verdict"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert result["verdict"] in page
    for row in result["networks"]:
        assert row["name"] in page

    from rich.console import Console

    from throughtime.report.picture import cures

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(cures(result))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "█" in text
    assert "GRU, chrono start" in text


def test_what_is_asked_for_exists(capsys):
    with pytest.raises(SystemExit) as end:
        main(["demo", "nothing"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error:")


def test_the_truncated_network_is_trained_on_the_lags_that_are_shown():
    """Chunks end with the question: its loss goes back through all the steps of the last one."""
    model = Recaller("gru", "chrono").double()
    batch, state = recall(0, 0).double(), model.initial_state(demo.ROWS)
    params = dict(model.layer.named_parameters())
    result = gradflow.ledger(model.loss, batch, state, params, demo.SHORT, tensors=True)
    bptt.Truncated(demo.SHORT).backward(model.loss, batch, state)
    for name, parameter in params.items():
        kept = result.gradient(name)[: demo.SHORT].sum(0)
        torch.testing.assert_close(parameter.grad, kept, rtol=1e-9, atol=1e-12)
