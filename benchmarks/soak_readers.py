"""What `soak.py` damages: files of data of every kind that is read."""

from __future__ import annotations

from mutations import Target

TARGETS: tuple[Target, ...] = ()
