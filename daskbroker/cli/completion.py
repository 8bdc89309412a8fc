"""The command that prints scripts for completion by shells."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from .app import COMPLETING, app


class Shell(StrEnum):
    """Shells for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(help="Shell that the script is for.")],
) -> None:
    """Print a script for a shell that completes commands, options and configuration names.

    For bash and zsh, eval "$(daskbroker completion bash)" in ~/.bashrc or ~/.zshrc; for fish,
    daskbroker completion fish > ~/.config/fish/completions/daskbroker.fish
    """
    typer.echo(
        get_completion_script(prog_name="daskbroker", complete_var=COMPLETING, shell=shell.value)
    )
