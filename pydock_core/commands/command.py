"""The types of the command table: commands, options and arguments.  Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FLAG = ""  # an option without a value
"""``Option.metavar`` of an option that takes no value."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        flags: "-e", "--env"; the long one names the parsed value (``--env-file`` gives ``env_file``).
        help: one line.
        metavar: the name of the value in the help; FLAG if there is none.
        many: may be given several times, and collects a list.
        default: the value if the option is not given, or None; "true" for a flag that is set unless ``--flag=false`` is
            given.
        complete: the kind of words that complete the value: "container", "running", "image", "path", "copy", "volume",
            "network", "runtime", "signal" or None.
        field: the field of the create request or its HostConfig that it sets: "Env", "CapAdd", "LogConfig.Type";
            empty for none.
        convert: the conversion of its text, by name in :data:`pydock_core.commands.create_words.CONVERSIONS`;
            empty for none.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str = FLAG
    many: bool = False
    default: str | None = None
    complete: str | None = None
    field: str = ""
    convert: str = ""

    @property
    def takes_value(self) -> bool:
        return self.metavar != FLAG

    @property
    def long_flag(self) -> str:
        """Its first long flag, "--env"; its only flag if it has no long one."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])

    @property
    def destination(self) -> str:
        """The name of its parsed value: "env_file"."""
        return self.long_flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional word: ``count`` is "1", "?", "*", "+", or "rest" (everything that follows, including options)."""

    name: str
    count: str = "1"
    complete: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        path: its words, ("image", "capture").
        summary: one line.
        handler: "module:function" below pydock_core.commands, called with a Context and the parsed words.
        aliases: other words for the same command, ("container", "ps").
        refused: Docker's options that do not apply here, each with the reason; "--flag=false" refuses that value.
    """

    path: tuple[str, ...]
    summary: str
    handler: str
    options: tuple[Option, ...] = ()
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join(self.path)


# Shared by several commands.
def listing_format(example: str) -> Option:
    """Return the option ``--format`` of a listing; ``example`` is a template for the help."""
    return Option(("--format",), f"table, json, or a Go template: '{example}'", "FORMAT")


def document_format(example: str, *flags: str) -> Option:
    """Return the option ``--format`` of a command that shows documents; ``example`` is a template for the help."""
    return Option((*flags, "--format"), f"json, or a Go template: '{example}'", "FORMAT")


def filter_option(examples: str) -> Option:
    """Return the option ``--filter`` of a listing; ``examples`` are filters for the help."""
    return Option(("-f", "--filter"), f"show only what matches: {examples}", "KEY=VALUE", many=True)


NO_LINK_LOCAL = (
    "containers have no link-local addresses: the firewall admits only the addresses that PyDock assigned"
)
NO_TRUNC = Option(("--no-trunc",), "do not shorten ids and commands")
QUIET = Option(("-q", "--quiet"), "print only ids")
PROGRESS = Option(("--progress",), "form of the progress: auto, plain, json, quiet", "KIND", default="auto")
PLATFORM = Option(
    ("--platform",), "choose the image for a platform: linux/amd64, linux/arm/v7", "OS[/ARCH[/VARIANT]]"
)
FORCE = Option(("-f", "--force"), "do not ask")
PRUNE_FILTER = Option(
    ("--filter",), "only objects that match: until=24h, label=KEY, label!=KEY", "KEY=VALUE", many=True
)
SIZE = Option(("-s", "--size"), "measure the writable layers")
