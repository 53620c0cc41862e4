"""The command line. It imports nothing heavy: what a command needs is imported when it runs."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bot.settings import Settings

USAGE = 2  # exit status for wrong use, also of the settings (BSD's convention is 64; scripts expect 2 here)

cli = typer.Typer(
    name="memwarden",
    help="A chatops bot that small teams trust with their servers' memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:  # noqa: FBT001 - typer's way
    if asked:
        typer.echo(f"memwarden {version('memwarden')}")
        raise typer.Exit


@cli.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="The settings; else ./memwarden.toml, else /etc/memwarden/memwarden.toml.")
    ] = None,
    asked: Annotated[  # noqa: FBT002 - typer's way
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep where the settings are."""
    del asked
    context.obj = config


@cli.command()
def run(
    context: typer.Context,
    person: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who sits at the console, when several may.")] = None,
) -> None:
    """Start the bot on every chat that the settings name."""
    from bot import process

    settings = _settings(context)
    sys.exit(process.run(settings, person))


@cli.command()
def ask(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="COMMAND", help="As one would type it in a chat: '/mem prod'.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,  # noqa: FBT002 - typer's way
    person: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who asks, when several may.")] = None,
) -> None:
    """Run one command as the console person and print the answer."""
    from bot import process

    settings = _settings(context, as_json=as_json)
    sys.exit(asyncio.run(process.ask_once(settings, person, text, as_json=as_json)))


@cli.command()
def check(context: typer.Context) -> None:
    """Look at everything that can be wrong, and say for each what to do."""
    from bot import check as checks

    settings = _settings(context)
    sys.exit(asyncio.run(checks.run(settings)))


def _settings(context: typer.Context, *, as_json: bool = False) -> Settings:
    from bot.settings import SettingsError, load

    try:
        return load(context.obj)
    except SettingsError as trouble:
        if as_json:
            from bot.refusal import refusal

            refusal(str(trouble).splitlines()[0], kind="settings")
        typer.echo(str(trouble), err=True)
        sys.exit(1)


def main() -> None:
    """The entry point."""
    cli()
