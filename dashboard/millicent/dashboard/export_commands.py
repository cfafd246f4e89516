"""`millicent export`: what others ask for, as files."""

from __future__ import annotations

import typer

from millicent.dashboard.focus_commands import export_focus, export_query
from millicent.dashboard.statement_commands import export_statement

export = typer.Typer(no_args_is_help=True, help="Files for others: statements of teams, FOCUS, any answer.")
export.command("statement")(export_statement)
export.command("focus")(export_focus)
export.command("query")(export_query)
