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

HOSTILE_NAME = "<script>window.hacked=1</script>"
HOSTILE_TEXT = 'Said "</script><img src=x onerror=window.hacked=1>" & left.\x00\ud800'


def put(folder: Path, scores: Any, log: list[dict[str, Any]], config: str, model: Any) -> Path:
    """Writes a run folder's files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "config.toml").write_text(config, encoding="utf-8")
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    return folder


def days(start: date, length: int) -> list[str]:
    """So many week days as ISO dates."""
    found, day = [], start
    while len(found) < length:
        if day.weekday() < 5:
            found.append(day.isoformat())
        day += timedelta(days=1)
    return found


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


def gradients(decay: float, truncation: int | None, max_lag: int) -> dict[str, Any]:
    """The examination of a network whose gradient decays evenly: what `gradients --json` prints."""
    lags = list(range(max_lag + 1))
    norms = [0.8 * decay**k * (1 + 0.1 * math.sin(k)) for k in lags]
    rest = norms[-1] * decay / (1 - decay)
    whole = sum(norms) + rest
    share = [sum(norms[: k + 1]) / whole for k in lags]
    reach = {
        key: next((k for k in lags if share[k] >= float(key)), None)
        for key in ("0.5", "0.9", "0.95", "0.99")
    }
    state = [0.02 * decay**k for k in lags]
    spread = {"low": 0.2, "median": 0.7, "mean": 1.0, "high": 2.1}
    beyond = None if truncation is None else 1 - share[min(truncation - 1, max_lag)]
    return {
        "model": "gru",
        "lags": lags,
        "norms": norms,
        "share": share,
        "bias": [1 - s for s in share],
        "cosine": [min(1.0, 0.8 + 0.2 * s) for s in share],
        "state_norm": {key: [c * v for v in state] for key, c in spread.items()},
        "reach": reach,
        "max_lag": max_lag,
        "steps": 2 * max_lag,
        "k1": truncation,
        "k2": truncation,
        "beyond": beyond,
        "jacobian_norm": {
            "lags": [1, 10], "mean": [0.98, 0.6], "low": [0.8, 0.4], "median": [0.9, 0.6],
            "high": [1.1, 0.8]
        },
        "lyapunov": -0.02,
        "spectral_radius": {"recurrent.weight_hh_l0": 0.97},
        "saturation": {"recurrent.update": 0.02},
        "verdict": {
            "name": "healthy",
            "sentence": "The gradient reaches as far as training lets it, and decays gently.",
            "remedy": "Nothing needs to change.",
            "evidence": {"share beyond": beyond},
        },
    }  # fmt: skip


def history(needed: int) -> dict[str, Any]:
    """A history certificate in short: what is lost by seeing only so many lags."""
    curve = []
    for lag in (0, 1, 2, 3, 5, 8, 13, 20, 32, 50, 80):
        lost = 0.4 * math.exp(-3.2 * lag / needed)
        wide = 0.012 + 0.1 * lost
        point = {"lags": lag, "nats": 3.3 + lost, "lost": lost, "gain": 0.4 - lost}
        curve.append({**point, "interval": [lost - wide, lost + wide]})
    return {
        "lags": {"needed": needed, "model": "gru", "curve": curve},
        "latent_gain": {"wins": True, "nats": 0.02, "interval": [0.01, 0.03], "against": "ar(5)"},
        "verdict": f"Order matters, and {needed} days carry all of it that can be told.",
    }


def model_row(
    name: str, family: str, about: str, nats: float, parameters: int, seconds: float, **more: Any
) -> dict[str, Any]:
    """One row of the table of models."""
    row: dict[str, Any] = {
        "name": name,
        "family": family,
        "description": about,
        "parameters": parameters,
        "nats_per_step": nats,
        "valid_nats_per_step": nats - 0.021,
        "bits_per_step": nats / math.log(2),
        "bits_per_character": None,
        "perplexity": None,
        "difference": None,
        "seconds": seconds,
        "peak_memory_mb": None,
        "selected": False,
    }
    return row | more


def horizons(length: int, base: float) -> list[dict[str, Any]]:
    """Accuracy that decays with the horizon."""
    rows = []
    for h in range(1, length + 1):
        crps = base * math.sqrt(h) * (1 + 0.03 * math.sin(h))
        rows.append(
            {
                "horizon": h,
                "crps": crps,
                "mase": 0.9 + 0.11 * math.sqrt(h),
                "smape": 0.6 + 0.31 * math.sqrt(h),
                "rmse": crps * 1.9,
                "pinball": {"0.1": crps * 0.3, "0.5": crps * 0.5, "0.9": crps * 0.31},
                "coverage": {
                    "0.8": 0.81 - 0.004 * h + 0.01 * math.sin(2 * h),
                    "0.95": 0.955 - 0.0025 * h + 0.005 * math.cos(3 * h),
                },
            }
        )
    return rows


def price_fans(path: list[float], dates: list[str], horizon: int) -> list[dict[str, Any]]:
    """Forecasts from four origins."""
    fans = []
    for index, origin in enumerate((2300, 2380, 2460, 2540)):
        spread = np.sqrt(np.arange(1, horizon + 1)) * 0.0105 * (1 + 0.25 * index)
        quantiles = {
            key: [path[origin] * math.exp(z * float(s)) for s in spread]
            for key, z in (
                ("0.025", -2.0),
                ("0.1", -1.28),
                ("0.5", 0.02),
                ("0.9", 1.27),
                ("0.975", 1.95),
            )
        }
        fans.append(
            {
                "series": "sp500.csv",
                "column": "close",
                "past": {
                    "times": dates[origin - 140 : origin + 1],
                    "values": path[origin - 140 : origin + 1],
                },
                "times": dates[origin + 1 : origin + 1 + horizon],
                "truth": path[origin + 1 : origin + 1 + horizon],
                "quantiles": quantiles,
            }
        )
    return fans


def price_models() -> list[dict[str, Any]]:
    """Nine models, their differences to GARCH."""
    models = [
        model_row("constant", "reference", "independent days, Student-t", 4.912, 3, 0.02),
        model_row("random walk", "reference", "log returns, Student-t", 3.4261, 3, 0.03),
        model_row("ar(5)", "autoregressive", "linear in 5 days, Student-t", 3.4245, 8, 0.4),
        model_row("arch(5)", "reference", "variance from 5 days", 3.3611, 8, 0.9),
        model_row("garch(1,1)-t", "reference", "fitted by arch", 3.3302, 5, 0.6),
        model_row("window(21)", "autoregressive", "MLP on 21 days", 3.3391, 4865, 14.2),
        model_row("rnn", "latent", "RNN(16)×4, Student-t", 3.3344, 2314, 21.7),
        model_row("gru", "latent", "GRU(8)×8, Student-t", 3.3051, 3411, 42.9, selected=True),
        model_row("lstm", "latent", "LSTM(8)×8, Student-t", 3.3073, 4480, 51.3),
    ]
    for row in models:
        gap = row["nats_per_step"] - 3.3302
        if row["name"] != "garch(1,1)-t":
            width = 0.009 + 0.12 * abs(gap)
            row["difference"] = {"value": gap, "interval": [gap - width, gap + 1.15 * width]}
        row["peak_memory_mb"] = 310.0 + row["parameters"] / 50
    return models


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
    top = [
        {
            "where": dates_of_nats[i],
            "nats": nats[i],
            "quote": f"{path[i + 1]:,.1f} after {path[i]:,.1f}; expected within ±1.9 %",
        }
        for i in worst
    ]
    pit = rng.multinomial(400, np.array([1.25, *([1.0] * 18), 1.2]) / 20.45) / 400
    orders = [
        {
            "order": k,
            "nats_per_step": 3.4261 - 0.03 * (1 - math.exp(-k / 4)) + 0.0007 * k,
            "aic": 11210 - 160 * (1 - math.exp(-k / 4)) + 4.1 * k,
            "bic": 11216 - 160 * (1 - math.exp(-k / 4)) + 9.0 * k,
        }
        for k in range(1, 25)
    ]
    walks = [(1500 * np.exp(np.cumsum(rng.standard_t(5, 250) * 0.008))).tolist() for _ in range(20)]
    scores = {
        "schema": 1,
        "unit": "nats per day",
        "step": "day",
        "best": "gru",
        "reference": "garch(1,1)-t",
        "verdict": "The past matters, mostly for how far the price moves and hardly for where: a "
        "latent state gains 0.025 nats a day over GARCH(1,1), and tomorrow's loss will exceed "
        "2.4 % one day in a hundred.",
        "data": {
            "source": "sp500.csv",
            "kind": "real",
            "sequences": 1,
            "columns": ["close"],
            "steps": {"train": 2080, "valid": 260, "test": 260},
            "time": {
                "train": [dates[0], dates[2079]],
                "valid": [dates[2080], dates[2339]],
                "test": [dates[2340], dates[-1]],
            },
            "notes": ["Days without trading are left out, not filled: 2 600 rows in 10 years."],
            "transforms": ["log", "difference", "standardise"],
        },
        "models": models,
        "orders": orders,
        "forecast": {
            "horizon": horizon,
            "origins": 10,
            "levels": [0.8, 0.95],
            "free_running": horizons(horizon, 7.1),
            "one_step": horizons(1, 7.0)[0],
            "fans": fans,
        },
        "calibration": {"pit": pit.tolist()},
        "surprisal": {
            "position": list(range(len(nats))),
            "times": dates_of_nats,
            "nats": nats,
            "top": top,
        },
        "samples": [{"kind": "paths", "series": "sp500.csv", "values": walks}],
        "gradients": gradients(0.95, 80, 200),
        "history": history(26),
    }
    log = training(
        {
            "window(21)": (3.34, 14.2),
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
    for name, family, about, nats, size, seconds in (
        ("uniform", "reference", "every character alike", 4.174, 0, 0.0),
        ("frequencies", "reference", "characters one by one", 3.162, 65, 0.1),
        ("5-gram", "reference", "Kneser-Ney", 1.622, 310_000, 1.4),
        ("ar(8)", "autoregressive", "MLP on 8 characters", 1.571, 212_000, 88.0),
        (HOSTILE_NAME, "latent", "GRU(256)", 1.418, 443_000, 412.0),
    ):
        row = model_row(name, family, about, nats, size, seconds)
        bits = nats / math.log(2)
        row |= {"bits_per_step": bits, "bits_per_character": bits, "perplexity": math.exp(nats)}
        if name != "5-gram":
            gap = nats - 1.622
            row["difference"] = {"value": gap, "interval": [gap - 0.012, gap + 0.012]}
        row["selected"] = name == HOSTILE_NAME
        rows.append(row)
    position = np.sort(rng.choice(110_000, 1900, replace=False)).tolist()
    nats = rng.gamma(1.6, 1.5, 1900).round(4).tolist()
    worst = sorted(range(1900), key=lambda i: -nats[i])[:6]
    quotes = ["…and so the Xylophone was never", HOSTILE_TEXT, "naïve façade: 東京, сердце 🎻"] * 2
    text = (
        "KING HENRY:\nWhat, shall the morning wear a borrowed crown?\nGo, bid the captains rest; "
        "the night is long,\nAnd every star keeps counsel with the sea.\n\nMESSENGER:\nMy lord, "
        "the gates are open, and they come\nWith torches, and with silence.\n\n"
    )
    scores = {
        "schema": 1,
        "unit": "nats per character",
        "step": "character",
        "best": HOSTILE_NAME,
        "reference": "5-gram",
        "verdict": "A latent state saves 0.29 bits a character over the best window of five: what "
        "was said long ago still matters here.",
        "data": {
            "source": "a very long file name of shakespeare's collected plays and sonnets.txt",
            "kind": "text",
            "sequences": 1,
            "columns": [],
            "steps": {"train": 892_315, "valid": 111_539, "test": 111_540},
            "time": None,
            "notes": ["65 different characters.", HOSTILE_TEXT],
            "transforms": ["characters"],
        },
        "models": rows,
        "orders": [],
        "forecast": None,
        "calibration": None,
        "surprisal": {
            "position": position,
            "times": None,
            "nats": nats,
            "top": [
                {"where": str(position[i]), "nats": nats[i], "quote": quote}
                for i, quote in zip(worst, quotes, strict=True)
            ],
        },
        "samples": [{"kind": "text", "text": text * 3}, {"kind": "text", "text": HOSTILE_TEXT}],
    }
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
    for name, family, nats, size, seconds in (
        ("frequencies", "reference", 4.88, 256, 0.1),
        ("linear prediction", "reference", 3.31, 32, 0.8),
        ("ar(64)", "autoregressive", 2.95, 99_000, 130.0),
        ("gru", "latent", 2.71, 212_000, 304.0),
    ):
        row = model_row(name, family, "", nats, size, seconds, selected=name == "gru")
        gap = nats - 3.31
        if name != "linear prediction":
            row["difference"] = {"value": gap, "interval": [gap - 0.03, gap + 0.03]}
        rows.append(row)
    notes = [
        [int(rng.random() < 0.02 or (i // 8 + k) % 12 == 0) for k in range(48)] for i in range(96)
    ]
    nats = (2.2 + rng.gamma(1.2, 0.7, 2000)).tolist()
    scores = {
        "schema": 1,
        "unit": "nats per sample",
        "step": "sample",
        "best": "gru",
        "reference": "linear prediction",
        "verdict": "A latent state saves 0.87 bits on every sample over linear prediction.",
        "data": {
            "source": "recordings/",
            "kind": "sound",
            "sequences": 24,
            "columns": ["mono"],
            "steps": {"train": 3_200_000, "valid": 400_000, "test": 400_000},
            "time": None,
            "notes": [],
            "transforms": ["mu-law 8 bits"],
        },
        "models": rows,
        "orders": [],
        "forecast": None,
        "calibration": {"pit": (rng.multinomial(4000, [0.05] * 20) / 4000).tolist(), "count": 4000},
        "surprisal": {
            "position": list(range(0, 400_000, 200)),
            "times": None,
            "nats": nats,
            "top": [],
        },
        "samples": [
            {"kind": "sound", "wav_base64": tone(), "seconds": 1.5, "rate": 8000},
            {"kind": "sound", "wav_base64": "not base64!", "seconds": 1.0, "rate": 8000},
            {"kind": "roll", "values": notes},
        ],
    }
    log = training({"ar(64)": (2.95, 130.0), "gru": (2.71, 304.0)}, seed=4)
    return put(folder, scores, log, "seed = 2\n", {"schema": 1})
