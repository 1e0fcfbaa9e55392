"""What all commands share: the app, the two consoles, options, and how a result is printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from throughtime import __version__
from throughtime.cli.messages import epilogue
from throughtime.files import finite

app = App(
    name="throughtime",
    version=__version__,
    help="Recurrent sequence models with exact likelihoods: text, sound, prices, any series.",
    help_format="plaintext",
    help_epilogue=epilogue(""),
    suppress_keyboard_interrupt=False,  # `main` says what an interruption means
)
out = Console()
err = Console(stderr=True)

Json = Annotated[
    bool,
    Parameter(name="--json", negative=(), help="One JSON object on stdout.", show_default=False),
]
Seed = Annotated[int, Parameter(help="The one seed of everything random.")]
RunFolder = Annotated[Path, Parameter(help="A run folder, made by `throughtime fit`.")]


def emit(value: dict[str, Any], as_json: bool) -> bool:
    """Prints the JSON object if asked for; returns whether it did."""
    if as_json:
        sys.stdout.write(json.dumps(finite(value), allow_nan=False) + "\n")
    return as_json


def say(text: str) -> None:
    """A line of the result; long ones are left to the terminal to break."""
    out.print(Text(text), soft_wrap=True)
