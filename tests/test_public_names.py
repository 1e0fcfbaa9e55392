"""An example of every public name: short, and true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import throughtime as tt
from throughtime import bptt, emissions, gradflow, history, kernels
from throughtime.emissions import Emission

EXAMPLES: dict[str, Callable[..., None]] = {}
ALIASES = {"bptt.Loss", "bptt.Timed", "bptt.Update", "gradflow.Loss", "gradflow.Timed"}  # of types


def example(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a test as the example of these names, as they stand behind `tt.`."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        EXAMPLES.update(dict.fromkeys(names, test))
        return test

    return mark


def public() -> set[str]:
    """Every public name, those of the packages with a dot."""
    result = set(tt.__all__)
    for package in (bptt, emissions, gradflow, history, kernels):
        own = [
            n for n, v in vars(package).items() if getattr(v, "__module__", "") == package.__name__
        ]
        names = getattr(package, "__all__", [n for n in own if not n.startswith("_")])
        result |= {f"{package.__name__.removeprefix('throughtime.')}.{name}" for name in names}
    return result


def test_every_public_name_has_an_example() -> None:
    assert len(public()) > 80
    assert set(EXAMPLES) | ALIASES == public()


# ------------------------------------------------------------------------------------- layers


@example("RNN", "GRU", "LSTM", "LiGRU", "MinGRU")
def test_layers_run_over_a_batch_or_step_by_step() -> None:
    x = torch.randn(5, 4, 2)  # [T, B, I]
    for kind in (tt.RNN, tt.GRU, tt.LSTM, tt.LiGRU, tt.MinGRU):
        layer = kind(2, 3)
        y, _ = layer(x)
        y_0, _ = layer.step(x[0])
        assert y.shape == (5, 4, 3)
        torch.testing.assert_close(y_0, y[0])


@example("accelerate")
def test_accelerate_swaps_the_layers_of_torch() -> None:
    model = nn.Sequential(nn.GRU(2, 3))
    x = torch.randn(5, 4, 2)
    before = model(x)[0]
    tt.accelerate(model)
    assert isinstance(model[0], tt.GRU)
    torch.testing.assert_close(model(x)[0], before)


@example("restore")
def test_restore_puts_the_layers_of_torch_back() -> None:
    model = tt.accelerate(nn.Sequential(nn.GRU(2, 3)))
    assert tt.restore(model) is model
    assert type(model[0]) is nn.GRU


@example("Stepper")
def test_a_stepper_is_quick_and_keeps_the_weights_of_its_beginning() -> None:
    gru, x = tt.GRU(2, 3), torch.randn(5, 4, 2)
    y, state = gru(x)
    stepper, after = tt.Stepper(gru), None
    with torch.no_grad():
        gru.weight_hh_l0.zero_()  # is not seen
    for x_t in x:
        y_t, after = stepper(x_t, after)
    torch.testing.assert_close(y_t, y[-1].detach())
    torch.testing.assert_close(after, state.detach())


@example(
    "kernels", "kernels.backends", "kernels.check", "kernels.choose", "kernels.run", "kernels.Spec"
)
def test_one_recurrence_on_several_backends() -> None:
    assert tt.kernels.backends()["reference"]
    assert kernels.check("reference") == kernels.choose("gru", "reference") == "reference"
    layer, x = tt.GRU(2, 3), torch.randn(5, 4, 2)
    result, _ = kernels.run(
        kernels.Spec("gru", 1, True, False), x, torch.zeros(1, 4, 3), list(layer.parameters())
    )
    torch.testing.assert_close(result, layer(x)[0])


# --------------------------------------------------------------------------------------- data


@example("read", "Sequences")
def test_data_are_read_and_split_by_time(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("price\n" + "\n".join(map(str, range(1, 101))))
    data = tt.read(tmp_path / "prices.csv", value="price")
    train, valid, test = data.split(valid=0.1, test=0.2)
    assert (train.steps, valid.steps, test.steps) == (70, 10, 20)
    assert tt.Sequences.of([torch.zeros(3), torch.zeros(5)]).lengths.tolist() == [3, 5]


@example("Lanes", "Batch")
def test_lanes_are_a_batch_without_padding() -> None:
    data = tt.Sequences.of([torch.arange(6.0), torch.arange(4.0), torch.arange(2.0)])
    batch = tt.Lanes(data, 2)[:3]
    assert isinstance(batch, tt.Batch)
    assert batch.x.shape == (3, 2, 1)
    assert batch.reset[0].all()  # each lane begins with a sequence


# ------------------------------------------------------------------------- models and training


@pytest.fixture
def data() -> tt.Sequences:
    torch.manual_seed(0)
    return tt.Sequences.of([torch.randn(60, 1).cumsum(0)])


@example("Autoregressive")
def test_the_chain_rule(data: tt.Sequences) -> None:
    ar = tt.Autoregressive(order=2, emission=tt.emissions.Normal())
    ar.fit(data)
    assert float(ar.log_prob(data)) == pytest.approx(float(ar.step_log_prob(data).sum()))


@example("LatentAutoregressive", "Context")
def test_what_comes_after_a_past_is_sampled(data: tt.Sequences) -> None:
    model = tt.LatentAutoregressive("gru", 4, emission=tt.emissions.Normal())
    context = model.condition(data)
    assert isinstance(context, tt.Context)
    assert model.sample(5, context, num_paths=3).shape == (3, 5, 1)


@example("train", "FittedModel", "Forecast")
def test_a_model_trained_by_hand_forecasts(data: tt.Sequences) -> None:
    model = tt.LatentAutoregressive("gru", 4, emission=tt.emissions.Normal())
    fitted = tt.train(model, data, steps=2, transforms=["standardise"])
    assert isinstance(fitted, tt.FittedModel)
    ahead = fitted.forecast(3, quantiles=(0.1, 0.9), num_paths=20)
    assert isinstance(ahead, tt.Forecast)
    assert ahead.frame().columns == ["unique_id", "ds", "mean", "q0.1", "q0.9"]


@example("Trainer", "TrainSettings")
def test_the_training_loop_itself(data: tt.Sequences) -> None:
    model = tt.LatentAutoregressive("gru", 4, emission=tt.emissions.Normal())
    progress = tt.Trainer(model, data, None, tt.TrainSettings(steps=3)).run()
    assert progress.step == 3


@example("fit", "Run", "load")
def test_models_are_compared_and_kept(data: tt.Sequences, tmp_path: Path) -> None:
    run = tt.fit(data, model="ar", order=1, steps=4, out=tmp_path / "run")
    assert isinstance(run, tt.Run)
    again = tt.load(tmp_path / "run")
    assert isinstance(again, tt.Run)
    assert again.best.name == run.best.name


# ----------------------------------------------------------------------------------- emissions

FAMILIES = {
    "Bernoulli": emissions.Bernoulli(),
    "Categorical": emissions.Categorical(4),
    "DiscretisedLogistic": emissions.DiscretisedLogistic(4),
    "Laplace": emissions.Laplace(),
    "Mixture": emissions.Mixture("normal", 2),
    "NegativeBinomial": emissions.NegativeBinomial(),
    "Normal": emissions.Normal(),
    "Poisson": emissions.Poisson(),
    "SkewStudentT": emissions.SkewStudentT(),
    "StudentT": emissions.StudentT(),
}


@example("emissions", "emissions.Emission", "emissions.Distribution", "emissions.KINDS",
         "emissions.from_json", *(f"emissions.{name}" for name in FAMILIES))  # fmt: skip
@pytest.mark.parametrize("name", FAMILIES)
def test_an_emission_makes_distributions_of_raw_numbers(name: str) -> None:
    emission = FAMILIES[name]
    assert isinstance(emission, Emission)
    assert emissions.KINDS[emission.kind] is type(emission)
    assert emissions.from_json(emission.to_json()) == emission
    distribution = emission.distribution(torch.zeros(emission.num_parameters))
    assert isinstance(distribution, emissions.Distribution)
    one = distribution.sample((), torch.Generator().manual_seed(0))
    assert float(distribution.log_prob(one)) > -20


@example("emissions.parse")
def test_an_emission_has_a_string_form() -> None:
    assert emissions.parse("student_t:rank=1", columns=3) == emissions.StudentT(3, rank=1)


@example("emissions.MixtureOf", "emissions.weighted_mixture")
def test_distributions_are_averaged() -> None:
    coin = emissions.Bernoulli()
    both = coin.distribution(torch.tensor([[-20.0], [20.0]]))  # never, and always
    assert float(emissions.MixtureOf(both, 0).mean) == pytest.approx(0.5)
    apart = [both[0], both[1]]
    mixed = emissions.weighted_mixture(apart, torch.tensor([0.75, 0.25]))
    assert float(mixed.mean) == pytest.approx(0.25)


# ---------------------------------------------------------------------- gradients through time


class Problem:
    """A loss of a small network over eight steps, and what differentiates it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = tt.GRU(2, 3, dtype=torch.float64)
        self.batch = torch.randn(8, 4, 2, dtype=torch.float64)
        self.state = torch.zeros(1, 4, 3, dtype=torch.float64)
        self.params = dict(self.layer.named_parameters())

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        y, state = self.layer(batch, state)
        return (y**2).sum(), state

    def gradient(self, method: bptt.GradientMethod) -> Tensor:
        self.layer.zero_grad()
        method.backward(self.loss, self.batch, self.state)
        return torch.cat([p.grad.flatten() for p in self.layer.parameters()])


@pytest.fixture
def problem() -> Problem:
    return Problem()


@example("bptt", "bptt.Full", "bptt.Truncated", "bptt.Checkpointed", "bptt.GradientMethod")
def test_gradient_methods_are_values(problem: Problem) -> None:
    exact = problem.gradient(tt.bptt.Full())
    torch.testing.assert_close(problem.gradient(tt.bptt.Checkpointed(memory="1MB")), exact)
    torch.testing.assert_close(problem.gradient(tt.bptt.Truncated(k1=1, k2=8)), exact)
    assert not torch.allclose(problem.gradient(tt.bptt.Truncated(k1=1, k2=2)), exact)


@example("bptt.Adaptive", "bptt.Estimate", "bptt.Position")
def test_an_adaptive_truncation_measures_how_far_it_must_reach(problem: Problem) -> None:
    method = bptt.Adaptive(bias=0.5)
    at = method.advance(problem.loss, problem.batch, bptt.Position(state=problem.state))[-1]
    assert isinstance(at, bptt.Position)
    assert isinstance(at.estimate, bptt.Estimate)
    assert at.estimate.lag >= 0


@example("bptt.Randomized")
def test_a_randomized_truncation_has_the_mean_length_asked_for(problem: Problem) -> None:
    method = bptt.Randomized(mean_lag=4, generator=torch.Generator().manual_seed(0))
    assert problem.gradient(method).isfinite().all()
    assert 0 < method.chance(1) < 1  # of a cut after one step


@example("bptt.Online")
def test_online_gradients_of_an_elementwise_layer_are_exact() -> None:
    layer, batch = tt.MinGRU(2, 3, dtype=torch.float64), torch.randn(6, 4, 2, dtype=torch.float64)

    def loss(batch: Any, state: Any) -> tuple[Tensor, Any]:
        y, state = layer(batch, state)
        return (y**2).sum(), state

    start = torch.zeros(1, 4, 3, dtype=torch.float64)
    result = []
    for method, state in ((bptt.Full(), start), (bptt.Online(), layer.traced(start))):
        layer.zero_grad()
        method.backward(loss, batch, state)
        result.append(layer.weight_ih_l0.grad.clone())
    torch.testing.assert_close(*result)


@example("bptt.parse")
def test_a_gradient_method_has_a_string_form() -> None:
    assert bptt.parse("64,128") == bptt.Truncated(64, 128)
    assert bptt.parse("full") == bptt.Full()


@example("bptt.clip")
def test_gradients_are_clipped_to_a_joint_norm() -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3.0, 4.0])
    norm, clipped = bptt.clip([weight], 1.0)
    assert (float(norm), bool(clipped)) == (5.0, True)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


@example("gradflow", "gradflow.ledger", "gradflow.Ledger", "gradflow.ByLag", "gradflow.parameters")
def test_a_ledger_splits_the_gradient_by_lag(problem: Problem) -> None:
    ledger = tt.gradflow.ledger(
        problem.loss, problem.batch, problem.state, problem.params, max_lag=7, tensors=True
    )
    assert isinstance(ledger, gradflow.Ledger)
    whole = problem.gradient(bptt.Full())
    parts = torch.cat([ledger.gradient(name).sum(0).flatten() for name in problem.params])
    torch.testing.assert_close(parts, whole)
    assert ledger.reach(0.95) <= 7
    assert isinstance(ledger.joint, gradflow.ByLag)
    assert len(gradflow.parameters(problem.loss, problem.batch, problem.state)) == 4


@example("gradflow.diagnose", "gradflow.Verdict", "gradflow.Evidence")
def test_numbers_of_a_gradient_have_a_verdict(problem: Problem) -> None:
    ledger = gradflow.ledger(problem.loss, problem.batch, problem.state, problem.params, max_lag=7)
    evidence = ledger.evidence
    assert isinstance(evidence, gradflow.Evidence)
    verdict = gradflow.diagnose(evidence)
    assert isinstance(verdict, gradflow.Verdict)
    assert verdict == ledger.verdict


@example("gradflow.examine", "gradflow.Examination", "gradflow.NormsByLag")
def test_everything_about_a_gradient_at_once(problem: Problem) -> None:
    result = gradflow.examine(problem.loss, problem.batch, problem.state, problem.params, max_lag=4)
    assert isinstance(result, gradflow.Examination)
    assert isinstance(result.jacobian_norm, gradflow.NormsByLag)


@example("gradflow.adjoints")
def test_the_derivative_of_the_loss_by_each_state(problem: Problem) -> None:
    (result,) = gradflow.adjoints(problem.loss, problem.batch, problem.state)  # one leaf
    assert result.shape == (9, 1, 4, 3)  # S_0 … S_8


@example("gradflow.along_time")
def test_a_batch_is_any_pytree_cut_along_time() -> None:
    x, y = torch.zeros(8, 4), torch.zeros(8)
    batch = gradflow.along_time({"x": x, "y": y})
    assert len(batch) == 8
    assert batch[2:5]["y"].shape == (3,)


@example("gradflow.jacobian_norms", "gradflow.JacobianNorms", "gradflow.step_radius",
         "gradflow.spectral_radius")  # fmt: skip
def test_how_states_depend_on_earlier_ones(problem: Problem) -> None:
    result = gradflow.jacobian_norms(problem.loss, problem.batch, problem.state, lags=[1, 4])
    assert isinstance(result, gradflow.JacobianNorms)
    one, four = result.by_lag.mean
    assert one > four  # it is forgotten
    assert gradflow.step_radius(problem.loss, problem.batch, problem.state) < 1
    assert all(radius > 0 for radius in gradflow.spectral_radius(problem.params).values())


@example("gradflow.lyapunov", "gradflow.Lyapunov")
def test_nearby_states_come_together(problem: Problem) -> None:
    result = gradflow.lyapunov(problem.loss, problem.batch, problem.state, num=1)
    assert isinstance(result, gradflow.Lyapunov)
    assert result.largest < 0


@example("gradflow.saturation")
def test_the_share_of_saturated_gates(problem: Problem) -> None:
    shares = gradflow.saturation(problem.loss, problem.batch, problem.state)
    assert all(0 <= share <= 1 for share in shares.values())


@example("gradflow.sign_flip_test")
def test_whether_there_is_something_to_learn(problem: Problem) -> None:
    batch = torch.randn(32, 4, 2, dtype=torch.float64)
    p = gradflow.sign_flip_test(problem.loss, batch, problem.state, problem.params, max_lag=2)
    assert p is None or 0 < p <= 1


# ------------------------------------------------------------------------------------- history


@example("history", "history.certificate", "history.Certificate", "history.Lags", "history.Point",
         "history.OrderMatters", "history.LatentGain", "history.Recommendation", "history.Steps",
         "history.with_network")  # fmt: skip
def test_a_certificate_of_independent_steps() -> None:
    data = tt.Sequences.of([torch.randn(200, generator=torch.Generator().manual_seed(0))])
    result = tt.history.certificate(data, time_limit="4s")
    assert isinstance(result, history.Certificate)
    assert isinstance(result.order_matters, history.OrderMatters)
    assert not result.order_matters
    assert isinstance(result.lags, history.Lags)
    assert all(isinstance(point, history.Point) for point in result.lags.curve)
    assert isinstance(result.latent_gain, history.LatentGain)
    assert isinstance(result.recommendation, history.Recommendation)
    assert isinstance(result.steps, history.Steps)

    network = tt.LatentAutoregressive("gru", 2, emission=tt.emissions.Normal())
    train, _, test = data.split(valid=0.1, test=0.4)
    more = history.with_network(result, tt.train(network, train, steps=2), train, test, seed=0)
    assert isinstance(more.network, history.Lags)  # how far back that network remembers


@example("history.certificate_of")
def test_a_certificate_of_parts_that_are_there_already(data: tt.Sequences) -> None:
    train, valid, _ = data.split(valid=0.4, test=0.0)
    parts = SimpleNamespace(train=train, valid=valid)
    result = history.certificate_of(parts, time_limit=4, networks=False)
    assert result.steps.test == valid.steps
