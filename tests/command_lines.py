"""Command lines in files that we ship: whether they exist. Runs nothing."""

from collections.abc import Sequence

import click

from dispatcher.cli import main


def follow(line: Sequence[str]) -> None:
    """Raises where a command, an option or a value of `dispatcher` or `celery` does not exist."""
    program, *arguments = line
    if program == "dispatcher":
        follow_click(main, arguments)
    else:
        assert [program, *arguments[:2]] == ["celery", "-A", "dispatcher"]
        follow_celery(arguments[2:])


def follow_click(group: click.Command, arguments: list[str]) -> None:
    while isinstance(group, click.Group):
        name, *arguments = arguments
        found = group.get_command(click.Context(group), name)
        assert found is not None, f"no command {name}"
        group = found
    with group.make_context(group.name, arguments):
        pass


def follow_celery(arguments: list[str]) -> None:
    from celery.bin.celery import celery

    name, *options = arguments
    command = celery.commands[name]
    if name == "flower":
        follow_flower(options)
        return
    with click.Context(command) as context:
        _, extra, _ = command.make_parser(context).parse_args(options)
    assert not extra


def follow_flower(options: list[str]) -> None:
    from flower.options import default_options

    for written in options:
        name = written.removeprefix("--").partition("=")[0].replace("-", "_")
        assert name in default_options, f"Flower has no option {name}"
