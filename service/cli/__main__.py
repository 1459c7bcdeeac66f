"""`python -m service.cli` is `ppd`."""

from service.cli.commands import app

app(prog_name="ppd")
