"""Directives that make parts of pages from the code: settings, errors, commands, packages."""

from __future__ import annotations

import builtins
import inspect
import platform
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from packaging.requirements import Requirement
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from daskbroker.assets.handlers.registry import OWN
from daskbroker.core import errors
from daskbroker.core.settings import SETTINGS, VALUE_TYPES, Setting

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
DIRECTIVES: dict[str, type[SphinxDirective]] = {}


def named(name: str) -> Any:
    """A class decorator: a directive of this name."""

    def register(directive: type[SphinxDirective]) -> type[SphinxDirective]:
        DIRECTIVES[name] = directive
        return directive

    return register


def table(*rows: tuple[str, ...]) -> list[str]:
    """Lines of a Markdown table; the first row is its head."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    cells.insert(1, ["---"] * len(rows[0]))
    return [f"| {' | '.join(row)} |" for row in cells]


def markdown(docstring: str) -> str:
    """A docstring without the roles of reStructuredText."""
    short = re.sub(r"`~[\w.]*\.(\w+)`", r"`\1`", docstring)
    return re.sub(r":\w+:(`[^`]+`)", r"\1", short)


class FromCode(SphinxDirective):
    """A directive whose content is Markdown that :meth:`lines` makes."""

    def lines(self) -> list[str]:
        """The Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parsed(self.lines())

    def parsed(self, lines: list[str]) -> list[nodes.Node]:
        """What some Markdown is."""
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, self.get_location()), 0, parent)
        return parent.children


@named("settings")
class Settings(FromCode):
    """Every setting: key, environment variable, default, kind, and what it does."""

    def lines(self) -> list[str]:
        rows = [_setting_row(name, known) for name, known in SETTINGS.items()]
        return table(("key", "default", "values", "what it does"), *rows)


def _setting_row(name: str, known: Setting) -> tuple[str, ...]:
    kind = VALUE_TYPES.get(known.value_type) or ", ".join(f"`{x}`" for x in known.value_type)
    default = "none" if known.default is None else f"`{known.default}`"
    return f"`daskbroker.{name}`", default, kind, known.help


@named("errors")
class Errors(FromCode):
    """Every error or warning of daskbroker: its name, its bases, and its cause."""

    option_spec = {"warnings": lambda text: True}  # noqa: RUF012

    def lines(self) -> list[str]:
        shown = [
            (f"`{error.__name__}`", ", ".join(_bases(error)), markdown(_cause(error)))
            for error in every_error()
            if issubclass(error, Warning) == ("warnings" in self.options)
        ]
        return table(("name", "is also a", "cause"), *shown)


def every_error() -> Iterator[type[errors.DaskbrokerError]]:
    """The classes of :mod:`daskbroker.core.errors`, in its order."""
    for found in vars(errors).values():
        if inspect.isclass(found) and issubclass(found, errors.DaskbrokerError):
            yield found


def _bases(error: type) -> Iterator[str]:
    for base in error.__bases__:
        if hasattr(builtins, base.__name__) or base is not errors.DaskbrokerError:
            yield f"`{base.__name__}`"


def _cause(error: type) -> str:
    return " ".join(inspect.cleandoc(error.__doc__ or "").split())


@named("commands")
class Commands(FromCode):
    """A section for each command: what it does, its arguments and options."""

    def run(self) -> list[nodes.Node]:
        import typer.main

        from daskbroker.cli import app

        group: Any = typer.main.get_command(app)
        return [self.section(name, command) for name, command in sorted(group.commands.items())]

    def section(self, name: str, command: Any) -> nodes.section:
        """One command."""
        section = nodes.section(ids=[f"command-{name}"], names=[name])
        section += nodes.title(name, name)
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join(["daskbroker", name, *command.collect_usage_pieces(context)])
        lines = ["```text", usage, "```", "", inspect.cleandoc(command.help or "")]
        records = [param.get_help_record(context) or (param.human_readable_name, "")
                   for param in command.params]  # fmt: skip
        rows = [(f"`{given}`", does) for given, does in records]
        if rows:
            lines += ["", *table(("argument or option", "what it does"), *rows)]
        section += self.parsed(lines)
        return section


@named("handlers")
class Handlers(FromCode):
    """Each class of ours that reads files, and the specs and mimetypes that it is for."""

    def lines(self) -> list[str]:
        specs: dict[str, list[str]] = {}
        for spec, reference in OWN.items():
            specs.setdefault(reference, []).append(f"`{spec}`")
        rows = [
            (", ".join(names), f"`{reference.partition(':')[2]}`", _summary(reference))
            for reference, names in specs.items()
        ]
        return table(("spec or mimetype", "class", "reads"), *rows)


def _summary(reference: str) -> str:
    """The first paragraph of a handler's docstring."""
    module, _, name = reference.partition(":")
    said = inspect.getdoc(getattr(import_module(module), name)) or ""
    return markdown(said.partition("\n\n")[0])


@named("packages")
class Packages(FromCode):
    """What the project needs, its bound, and the version that is there."""

    def lines(self) -> list[str]:
        project = tomllib.loads(PROJECT.read_text(encoding="utf8"))["project"]
        groups = {"always": project["dependencies"], **project["optional-dependencies"]}
        rows = [("Python", "always", project["requires-python"], platform.python_version())]
        for group, wanted in groups.items():
            extra = group if group == "always" else f"the extra `{group}`"
            for name, bound in map(_name_and_bound, wanted):
                rows.append((f"`{name}`", extra, bound or "any", _installed(name)))
        return table(("package", "for", "bound", "here"), *rows)


def _name_and_bound(wanted: str) -> tuple[str, str]:
    requirement = Requirement(wanted)
    return requirement.name, str(requirement.specifier)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
