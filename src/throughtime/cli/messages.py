"""What the command line says: examples under each help, and errors in its own spelling."""

from __future__ import annotations

import re

from throughtime.errors import ThroughtimeError

EXAMPLES = {
    "": """
throughtime fit prices.csv --value close       compare models of a series
throughtime history prices.csv --value close   how much of the past they need
throughtime forecast runs/prices --horizon 20  quantiles of what comes next
throughtime fit story.txt --time-limit 10m     the same for text
throughtime sample runs/story --length 500     new text from the best model
throughtime COMMAND --help                     options and more examples""",
    "read": """
throughtime read prices.csv                    what each column is taken for, and why
throughtime read sensors.csv --missing=-999 --time date,clock
throughtime read sales.csv --json""",
    "fit": """
throughtime fit prices.csv --value close
throughtime fit sales.csv --id shop --value sold --covariates promotion
throughtime fit story.txt --model lstm --time-limit 10m
throughtime fit names.txt --lines --split sequence
throughtime fit recordings/ --rate 8000 -o runs/voices""",
    "history": """
throughtime history sales.csv --value sold
throughtime history story.txt --time-limit 5m
throughtime history names.txt --lines --json""",
    "score": """
throughtime score runs/story other.txt
throughtime score runs/prices prices.csv --steps surprisal.csv
throughtime score runs/voices new.wav --json""",
    "forecast": """
throughtime forecast runs/prices --horizon 20
throughtime forecast runs/prices other.csv --horizon 20
throughtime forecast runs/sales --series north --quantiles 0.05,0.5,0.95
throughtime forecast runs/sales --future next-month.csv -o forecast.csv""",
    "update": """
throughtime update runs/prices today.csv
throughtime update runs/sales sales.csv && throughtime forecast runs/sales --horizon 14""",
    "sample": """
throughtime sample runs/story --length 500 --temperature 0.8 --prompt "Once "
throughtime sample runs/voices -o new.wav
throughtime sample runs/prices --paths 100 -o paths.parquet""",
    "gradients": """
throughtime gradients runs/prices
throughtime gradients runs/story --max-lag 500
throughtime gradients runs/story --json""",
    "report": """
throughtime report runs/prices""",
    "bench": """
throughtime bench --quick
throughtime bench --only gru,step --threads 1
throughtime bench --rounds 30 --json""",
    "demo": """
throughtime demo gradients
throughtime demo gradients --seed 1 -o vanishing.html""",
    "doctor": """
throughtime doctor
throughtime doctor --json""",
}


def epilogue(name: str) -> str:
    """The examples under a command's help."""
    return "Examples:" + EXAMPLES[name].replace("\n", "\n  ")


def explained(error: BaseException) -> str | None:
    """An error in one line; None for one that nobody expected."""
    if isinstance(error, ThroughtimeError):
        return as_flags(str(error))
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "out of memory; use a smaller --hidden, fewer --paths or a shorter --horizon"
    return None


_FLAGS = {"out": "-o", "num_paths": "--paths", "header=False": "--no-header"}
_OPTIONS = (
    "model|order|hidden|layers|bptt|emission|symbols|time|value|id|covariates|time_format|gaps|"
    "layout|zone|sort|duplicates|leading|skip|comment|separator|decimal|thousands|units|missing|part|"
    "header|lines|text|encoding|rate|kind|valid|test|split|time_limit|steps|seed|name|out|unknown|"
    "future|horizon|series|quantiles|num_paths|paths|tolerance|length|prompt|temperature|top_p|rounds|threads|only|"
    "max_lag"
)
_PYTHON = re.compile(rf"(?<![\w./])({_OPTIONS})=('[^']*'|[-\w.,%/*]*[\w%*])?")


def as_flags(message: str) -> str:
    """A message with options as this command line spells them: `value=` becomes `--value`."""

    def flag(match: re.Match[str]) -> str:
        name, value = match[1], match[2] or ""
        if match[0] in _FLAGS:
            return _FLAGS[match[0]]
        if name == "time" and value == "False":
            value = "none"
        spelled = _FLAGS.get(name, "--" + name.replace("_", "-"))
        if value.startswith("'-"):
            return f"{spelled}={value}"
        return spelled if value in ("", "True") else f"{spelled} {value}"

    return _PYTHON.sub(flag, message.replace(", gap=0", ""))  # no command has that option
