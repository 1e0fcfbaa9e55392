"""`python -m throughtime`: the command line."""

from throughtime.cli import main

main()
