"""The command `promptsearch completion`, which sets up completion in the shell."""

from __future__ import annotations

import click

from promptsearch.commands.examples import example

_HOW = {
    "bash": 'eval "$(promptsearch completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(promptsearch completion zsh)"  in ~/.zshrc',
    "fish": "promptsearch completion fish | source  in ~/.config/fish/config.fish",
}


@click.command(
    epilog=example("promptsearch completion bash")
    + "\n\n\b\nTo set it up:\n"
    + "\n".join(f"  {shell}: {how}" for shell, how in _HOW.items())
)
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that lets the shell complete commands, options, banks, models and runs."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click supports all three
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "promptsearch", "_PROMPTSEARCH_COMPLETE").source())
