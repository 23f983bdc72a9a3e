"""Kinds of parameters that click lacks: finite numbers, and options with old spellings."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Number(click.FloatRange):
    """Range of finite numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse NaN, which passes every comparison with a bound, and infinity, for which no clock can be set."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a {'number' if math.isnan(number) else 'finite number'}.", param, ctx)
        return number


class Option(click.Option):
    """Option with old spellings, accepted for one release and shown in neither help nor errors.

    Args:
        declarations: As for click.
        aliases: The old spellings.
        fix: How to give a required option that is missing, for the error.
        settings: Click's own.
    """

    def __init__(self, *declarations: Any, aliases: tuple[str, ...] = (), fix: str = "", **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.aliases, self._fix = aliases, fix

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register the old spellings apart, so that both at once are seen."""
        super().add_to_parser(parser, ctx)
        if self.aliases:
            shown = self.name, self.opts
            self.name, self.opts = self._old_name, [*self.aliases]
            try:
                super().add_to_parser(parser, ctx)
            finally:
                self.name, self.opts = shown

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Take the value of an old spelling; it is an error beside the new one."""
        if self._old_name in opts:
            if self.name in opts:
                message = f"{self.aliases[0]} is the old name of {self.opts[0]}: give {self.opts[0]} alone"
                raise click.UsageError(message, ctx)
            opts = {**opts, str(self.name): opts[self._old_name]}
        return super().handle_parse_result(ctx, opts, args)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Read the variable that is named after the long spelling, where the command has a prefix for variables."""
        if self.envvar is not None or not ctx.auto_envvar_prefix:
            return super().resolve_envvar_value(ctx)
        spelling = max(self.opts, key=len).lstrip("-").replace("-", "_").upper()
        return os.environ.get(f"{ctx.auto_envvar_prefix}_{spelling}") or None

    @property
    def _old_name(self) -> str:
        return f"{self.name} by its old name"

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Name a missing option by its spelling and metavar."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            message = f"{self.opts[0]} {self.metavar} is missing{': ' if self._fix else ''}{self._fix}"
            raise click.UsageError(message, ctx) from None


class PositionalAlias(click.Argument):
    """Old positional spelling of an option: optional, hidden, and refused together with the option.

    Args:
        declarations: As for click.
        option: Parameter name of the option.
        settings: Click's own.
    """

    def __init__(self, declarations: Any, *, option: str, **settings: Any) -> None:
        super().__init__(declarations, required=False, expose_value=False, **settings)
        self.option = option

    def get_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Hide it in the usage line."""
        return []

    def get_help_record(self, ctx: click.Context) -> Any:  # noqa: ARG002 - click's signature
        """Hide it in the help."""
        return None

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Hand the value to the option, which is processed afterwards."""
        value = opts.get(self.name or "")
        if isinstance(value, str):
            if self.option in opts:
                message = f"unexpected argument {value!r}: --{self.option} is given already"
                raise click.UsageError(message, ctx)
            opts[self.option] = value  # type: ignore[index]
        return None, args
