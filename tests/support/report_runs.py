"""Run folders as `throughtime fit` leaves them, small but realistic, to test the report."""

from __future__ import annotations

import base64
import io
import json
import math
import wave
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from throughtime import manifest
from throughtime.evaluation.results import (
    BacktestResult,
    Calibration,
    CertificateRecord,
    DataSummary,
    Difference,
    Family,
    Fan,
    GradientRecord,
    HorizonAccuracy,
    LagCurve,
    LagPoint,
    ModelScores,
    OneStepAccuracy,
    OrderScore,
    Past,
    PathsSample,
    Place,
    RollSample,
    Scores,
    SoundSample,
    Spread,
    Surprisal,
    TextSample,
    VerdictRecord,
)

HOSTILE_NAME = "<script>window.hacked=1</script>"
HOSTILE_TEXT = 'Said "</script><img src=x onerror=window.hacked=1>" & left.\x00\ud800'


def put(folder: Path, scores: Scores, log: list[dict[str, Any]], config: str, model: Any) -> Path:
    """Writes a run folder's files."""
    folder.mkdir(parents=True, exist_ok=True)
    scores.write(folder / "scores.json")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "config.toml").write_text(config, encoding="utf-8")
    names = manifest.digests(folder, ("scores.json", "log.jsonl", "config.toml"))
    manifest.write(folder, {}, model, names)
    return folder


def days(start: date, length: int) -> list[str]:
    """So many week days as ISO dates."""
    result, day = [], start
    while len(result) < length:
        if day.weekday() < 5:
            result.append(day.isoformat())
        day += timedelta(days=1)
    return result


def training(
    names: dict[str, tuple[float, float]], seed: int, steps: int = 900
) -> list[dict[str, Any]]:
    """A log of models that learn: name to (last score, seconds in all)."""
    rng = np.random.default_rng(seed)
    log: list[dict[str, Any]] = [{"event": "note", "model": "", "message": "seed 0, 2 threads"}]
    for name, (last, seconds) in names.items():
        log.append({"event": "start", "model": name})
        for step in range(10, steps + 1, 10):
            x = step / steps
            train = last + 1.1 * math.exp(-7 * x) - 0.05 * x + 0.02 * rng.normal()
            common = {"model": name, "step": step, "seconds": round(seconds * x, 3)}
            log.append({"event": "step", **common, "train": train, "skipped": 0})
            if step % 30 == 0:
                valid = last + 1.15 * math.exp(-6 * x) + 0.03 * x * x + 0.004 * rng.normal()
                log.append({"event": "valid", **common, "valid": valid})
        log.append({"event": "end", "model": name})
    return log


def reaches(name: str, seconds: float, growth: tuple[float, float]) -> list[dict[str, Any]]:
    """What the log says of a gradient whose reach grows, or dies, by the same factor each time."""
    first, last = growth
    return [
        {
            "event": "valid",
            "model": name,
            "step": 100 * i,
            "seconds": round(seconds * i / 9, 3),
            "reach": round(first * (last / first) ** (i / 9), 2),
        }
        for i in range(1, 10)
    ]


def gradients(decay: float, truncation: int | None, max_lag: int) -> GradientRecord:
    """What is found of a network whose gradient decays evenly."""
    lags = list(range(max_lag + 1))
    norms = [0.8 * decay**k * (1 + 0.1 * math.sin(k)) for k in lags]
    rest = norms[-1] * decay / (1 - decay)
    whole = sum(norms) + rest
    share = [sum(norms[: k + 1]) / whole for k in lags]
    reach = {
        part: next((k for k in lags if share[k] >= part), None) for part in (0.5, 0.9, 0.95, 0.99)
    }
    state = [0.02 * decay**k for k in lags]
    spread = {"low": 0.2, "median": 0.7, "mean": 1.0, "high": 2.1}
    beyond = None if truncation is None else 1 - share[min(truncation - 1, max_lag)]
    return GradientRecord(
        model="gru",
        step="day",
        rows=1,
        steps=2 * max_lag,
        max_lag=max_lag,
        norms=tuple(norms),
        share=tuple(share),
        bias=tuple(1 - s for s in share),
        cosine=tuple(min(1.0, 0.8 + 0.2 * s) for s in share),
        state_norm=Spread(**{key: [c * v for v in state] for key, c in spread.items()}),
        reach=reach,
        k2=truncation,
        beyond=beyond,
        verdict=VerdictRecord(
            name="healthy",
            sentence="The gradient reaches as far as training lets it, and decays gently.",
            remedy="Nothing needs to change.",
        ),
    )


def certificate(needed: int) -> CertificateRecord:
    """A history certificate in short: what is lost by seeing only so many lags."""
    curve = []
    for lag in (0, 1, 2, 3, 5, 8, 13, 20, 32, 50, 80):
        lost = 0.4 * math.exp(-3.2 * lag / needed)
        wide = 0.012 + 0.1 * lost
        interval = (lost - wide, lost + wide)
        curve.append(LagPoint(lags=lag, lost=lost, gain=0.4 - lost, interval=interval))
    return CertificateRecord(
        lags=LagCurve(needed=needed, model="gru", curve=tuple(curve)),
        verdict=f"Order matters, and {needed} days carry all of it that can be measured.",
    )


def model_row(
    name: str,
    family: Family,
    about: str,
    nats: float,
    size: int,
    seconds: float,
    gap: Difference | None = None,
    **more: Any,
) -> ModelScores:
    """One row of the table of models."""
    return ModelScores(
        name=name,
        family=family,
        description=about,
        parameters=size,
        nats_per_step=nats,
        validation_nats_per_step=nats - 0.021,
        bits_per_step=nats / math.log(2),
        difference=gap,
        seconds=seconds,
        **more,
    )


def horizons(length: int, base: float) -> tuple[HorizonAccuracy, ...]:
    """Accuracy that decays with the horizon."""
    rows = []
    for h in range(1, length + 1):
        crps = base * math.sqrt(h) * (1 + 0.03 * math.sin(h))
        rows.append(
            HorizonAccuracy(
                horizon=h,
                crps=crps,
                mase=0.9 + 0.11 * math.sqrt(h),
                smape=0.6 + 0.31 * math.sqrt(h),
                rmse=crps * 1.9,
                pinball={0.1: crps * 0.3, 0.5: crps * 0.5, 0.9: crps * 0.31},
                coverage={
                    0.8: 0.81 - 0.004 * h + 0.01 * math.sin(2 * h),
                    0.95: 0.955 - 0.0025 * h + 0.005 * math.cos(3 * h),
                },
            )
        )
    return tuple(rows)


def price_fans(path: list[float], dates: list[str], horizon: int) -> tuple[Fan, ...]:
    """Forecasts from four origins."""
    fans = []
    for index, origin in enumerate((2300, 2380, 2460, 2540)):
        spread = np.sqrt(np.arange(1, horizon + 1)) * 0.0105 * (1 + 0.25 * index)
        quantiles = {
            level: tuple(path[origin] * math.exp(z * float(s)) for s in spread)
            for level, z in ((0.025, -2.0), (0.1, -1.28), (0.5, 0.02), (0.9, 1.27), (0.975, 1.95))
        }
        before, after = slice(origin - 140, origin + 1), slice(origin + 1, origin + 1 + horizon)
        fans.append(
            Fan(
                series="sp500.csv",
                column="close",
                past=Past(times=tuple(dates[before]), values=tuple(path[before])),
                times=tuple(dates[after]),
                truth=tuple(path[after]),
                quantiles=quantiles,
            )
        )
    return tuple(fans)


def price_models() -> tuple[ModelScores, ...]:
    """Nine models, their differences to GARCH."""
    rows: tuple[tuple[str, Family, str, float, int, float], ...] = (
        ("constant", "reference", "independent days, Student-t", 4.912, 3, 0.02),
        ("random walk", "reference", "log returns, Student-t", 3.4261, 3, 0.03),
        ("ar(5)", "autoregressive", "linear in 5 days, Student-t", 3.4245, 8, 0.4),
        ("arch(5)", "reference", "variance from 5 days", 3.3611, 8, 0.9),
        ("garch(1,1)-t", "reference", "fitted by arch", 3.3302, 5, 0.6),
        ("mlp(21)", "autoregressive", "MLP on 21 days", 3.3391, 4865, 14.2),
        ("rnn", "latent", "RNN(16)×4, Student-t", 3.3344, 2314, 21.7),
        ("gru", "latent", "GRU(8)×8, Student-t", 3.3051, 3411, 42.9),
        ("lstm", "latent", "LSTM(8)×8, Student-t", 3.3073, 4480, 51.3),
    )
    result = []
    for name, family, about, nats, size, seconds in rows:
        gap = nats - 3.3302
        width = 0.009 + 0.12 * abs(gap)
        difference = None
        if name != "garch(1,1)-t":
            difference = Difference(value=gap, interval=(gap - width, gap + 1.15 * width))
        result.append(
            model_row(
                name, family, about, nats, size, seconds, difference,
                peak_memory_mb=310.0 + size / 50, selected=name == "gru",
            )
        )  # fmt: skip
    return tuple(result)


def prices(folder: Path) -> Path:
    """Daily prices: nine models, an interval each, forecasts with dates, orders."""
    rng = np.random.default_rng(7)
    total, horizon = 2600, 24
    variance, value, path = 1.0, math.log(1180.0), []
    noise = rng.standard_t(5, total) * math.sqrt(3 / 5)
    for shock in noise:
        step = 0.009 * math.sqrt(variance) * float(shock)
        value += step + 0.0002
        variance = 0.06 + 0.10 * (step / 0.009) ** 2 + 0.85 * variance
        path.append(math.exp(value))
    dates = days(date(2009, 1, 2), total)
    fans = price_fans(path, dates, horizon)
    models = price_models()
    returns = np.abs(np.diff(np.log(np.array(path)))) / 0.009
    nats = (2.6 + 0.9 * np.log1p(returns**2)).tolist()
    dates_of_nats = dates[1:]
    worst = sorted(range(len(nats)), key=lambda i: -nats[i])[:8]
    top = tuple(
        Place(
            where=dates_of_nats[i],
            nats=nats[i],
            quote=f"{path[i + 1]:,.1f} after {path[i]:,.1f}; expected within ±1.9 %",
        )
        for i in worst
    )
    pit = rng.multinomial(400, np.array([1.25, *([1.0] * 18), 1.2]) / 20.45) / 400
    orders = tuple(
        OrderScore(
            order=k,
            nats_per_step=3.4261 - 0.03 * (1 - math.exp(-k / 4)) + 0.0007 * k,
            aic=11210 - 160 * (1 - math.exp(-k / 4)) + 4.1 * k,
            bic=11216 - 160 * (1 - math.exp(-k / 4)) + 9.0 * k,
        )
        for k in range(1, 25)
    )
    one_step = horizons(1, 7.0)[0].model_dump(exclude={"horizon"})
    walks = [(1500 * np.exp(np.cumsum(rng.standard_t(5, 250) * 0.008))).tolist() for _ in range(20)]
    scores = Scores(
        unit="nats per day",
        step="day",
        best="gru",
        reference="garch(1,1)-t",
        verdict="The past matters, mostly for how far the price moves and hardly for where: a "
        "latent state gains 0.025 nats a day over GARCH(1,1), and tomorrow's loss will exceed "
        "2.4 % one day in a hundred.",
        data=DataSummary(
            source="sp500.csv",
            kind="real",
            sequences=1,
            columns=("close",),
            step="day",
            steps={"train": 2080, "validation": 260, "test": 260},
            time={
                "train": (dates[0], dates[2079]),
                "validation": (dates[2080], dates[2339]),
                "test": (dates[2340], dates[-1]),
            },
            notes=("Days without trading are left out, not filled: 2 600 rows in 10 years.",),
            transforms=("log", "difference", "standardise"),
        ),
        models=models,
        orders=orders,
        backtest=BacktestResult(
            horizon=horizon,
            origins=10,
            series=1,
            paths=200,
            levels=(0.8, 0.95),
            free_running=horizons(horizon, 7.1),
            one_step=OneStepAccuracy(count=260, **one_step),
            fans=fans,
        ),
        calibration=Calibration(pit=tuple(pit), count=400),
        surprisal=Surprisal(
            position=tuple(range(len(nats))), times=tuple(dates_of_nats), nats=tuple(nats), top=top
        ),
        samples=(PathsSample(series="sp500.csv", values=tuple(walks)),),
        gradients=gradients(0.95, 80, 200),
        certificate=certificate(26),
    )
    log = training(
        {
            "mlp(21)": (3.34, 14.2),
            "rnn": (3.335, 21.7),
            "gru": (3.305, 42.9),
            "lstm": (3.308, 51),
        },
        seed=1,
    )
    log += reaches("gru", 42.9, (6.0, 57.0)) + reaches("rnn", 21.7, (14.0, 3.0))
    config = 'seed = 0\nmodel = "auto"\n[train]\nlearning_rate = 0.003\nbptt = "full"\n'
    return put(folder, scores, log, config, {"schema": 1, "sha256": "9f" * 32, "cell": "gru"})


def book(folder: Path) -> Path:
    """A text: bits per character, hostile names and quotes, samples to read."""
    rng = np.random.default_rng(3)
    rows = []
    table: tuple[tuple[str, Family, str, float, int, float], ...] = (
        ("uniform", "reference", "every character alike", 4.174, 0, 0.0),
        ("frequencies", "reference", "characters one by one", 3.162, 65, 0.1),
        ("5-gram", "reference", "Kneser-Ney", 1.622, 310_000, 1.4),
        ("ar(8)", "autoregressive", "MLP on 8 characters", 1.571, 212_000, 88.0),
        (HOSTILE_NAME, "latent", "GRU(256)", 1.418, 443_000, 412.0),
    )
    for name, family, about, nats, size, seconds in table:
        gap = nats - 1.622
        difference = Difference(value=gap, interval=(gap - 0.012, gap + 0.012))
        rows.append(
            model_row(
                name, family, about, nats, size, seconds,
                None if name == "5-gram" else difference,
                bits_per_character=nats / math.log(2),
                perplexity=math.exp(nats),
                selected=name == HOSTILE_NAME,
            )
        )  # fmt: skip
    position = np.sort(rng.choice(110_000, 1900, replace=False)).tolist()
    surprise = rng.gamma(1.6, 1.5, 1900).round(4).tolist()
    worst = sorted(range(1900), key=lambda i: -surprise[i])[:6]
    quotes = ["…and so the Xylophone was never", HOSTILE_TEXT, "naïve façade: 東京, сердце 🎻"] * 2
    text = (
        "KING HENRY:\nWhat, shall the morning wear a borrowed crown?\nGo, bid the captains rest; "
        "the night is long,\nAnd every star keeps counsel with the sea.\n\nMESSENGER:\nMy lord, "
        "the gates are open, and they come\nWith torches, and with silence.\n\n"
    )
    scores = Scores(
        unit="nats per character",
        step="character",
        best=HOSTILE_NAME,
        reference="5-gram",
        verdict="A latent state saves 0.29 bits a character over the best order of five: what "
        "was said long ago still matters here.",
        data=DataSummary(
            source="a very long file name of shakespeare's collected plays and sonnets.txt",
            kind="text",
            sequences=1,
            step="character",
            steps={"train": 892_315, "validation": 111_539, "test": 111_540},
            notes=("65 different characters.", HOSTILE_TEXT),
            transforms=("characters",),
        ),
        models=tuple(rows),
        surprisal=Surprisal(
            position=tuple(position),
            nats=tuple(surprise),
            top=tuple(
                Place(where=str(position[i]), nats=surprise[i], quote=quote)
                for i, quote in zip(worst, quotes, strict=True)
            ),
        ),
        samples=(TextSample(text=text * 3), TextSample(text=HOSTILE_TEXT)),
    )
    log = training({"ar(8)": (1.571, 88.0), HOSTILE_NAME: (1.418, 412.0)}, seed=2)
    log.append({"event": "skip", "model": "lstm", "reason": "the time limit came first"})
    model = {"schema": 1, "vocabulary": [chr(i) for i in range(32, 2000)], "note": HOSTILE_TEXT}
    return put(folder, scores, log, "seed = 1\n", model)


def tone(rate: int = 8000, seconds: float = 1.5) -> str:
    """A decaying chord as a base64 wav."""
    t = np.arange(int(rate * seconds)) / rate
    sound = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 329.6)) / 3
    pcm = (sound * np.exp(-1.6 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)) * 24000).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return base64.b64encode(buffer.getvalue()).decode()


def sound(folder: Path) -> Path:
    """Sound: bits per sample, samples to hear, a piano roll, no forecast."""
    rng = np.random.default_rng(5)
    rows = []
    table: tuple[tuple[str, Family, float, int, float], ...] = (
        ("frequencies", "reference", 4.88, 256, 0.1),
        ("linear prediction", "reference", 3.31, 32, 0.8),
        ("ar(64)", "autoregressive", 2.95, 99_000, 130.0),
        ("gru", "latent", 2.71, 212_000, 304.0),
    )
    for name, family, nats, size, seconds in table:
        gap = nats - 3.31
        difference = Difference(value=gap, interval=(gap - 0.03, gap + 0.03))
        rows.append(
            model_row(
                name, family, "", nats, size, seconds,
                None if name == "linear prediction" else difference,
                selected=name == "gru",
            )
        )  # fmt: skip
    notes = [
        [int(rng.random() < 0.02 or (i // 8 + k) % 12 == 0) for k in range(48)] for i in range(96)
    ]
    surprise = (2.2 + rng.gamma(1.2, 0.7, 2000)).tolist()
    scores = Scores(
        unit="nats per sample",
        step="sample",
        best="gru",
        reference="linear prediction",
        verdict="A latent state saves 0.87 bits on every sample over linear prediction.",
        data=DataSummary(
            source="recordings/",
            kind="sound",
            sequences=24,
            columns=("mono",),
            step="sample",
            steps={"train": 3_200_000, "validation": 400_000, "test": 400_000},
            transforms=("mu-law 8 bits",),
        ),
        models=tuple(rows),
        calibration=Calibration(pit=tuple(rng.multinomial(4000, [0.05] * 20) / 4000), count=4000),
        surprisal=Surprisal(position=tuple(range(0, 400_000, 200)), nats=tuple(surprise)),
        samples=(
            SoundSample(wav_base64=tone(), seconds=1.5, rate=8000),
            SoundSample(wav_base64="not base64!", seconds=1.0, rate=8000),
            RollSample(values=tuple(map(tuple, notes))),
        ),
    )
    log = training({"ar(64)": (2.95, 130.0), "gru": (2.71, 304.0)}, seed=4)
    return put(folder, scores, log, "seed = 2\n", {"schema": 1})
