"""The part of the command table that is about images.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FILTER,
    FORMAT,
    INSPECT_FORMAT,
    NO_TRUNC,
    QUIET,
    Argument,
    Command,
    Option,
)

IMAGE_COMMANDS: tuple[Command, ...] = (
    Command(
        ("images",),
        "List images",
        "images:images",
        (
            Option(("-a", "--all"), "those without a name too"),
            FILTER,
            FORMAT,
            NO_TRUNC,
            QUIET,
        ),
        (Argument("REPOSITORY", "?", complete="image"),),
        (("image", "ls"), ("image", "list")),
        ("--digests", "--tree"),
    ),
    Command(
        ("rmi",),
        "Remove images",
        "images:rmi",
        (Option(("-f", "--force"), "also where a stopped container uses it"),),
        (Argument("IMAGE", "+", complete="image"),),
        (("image", "rm"), ("image", "remove")),
        ("--no-prune", "--platform"),
    ),
    Command(
        ("load",),
        "Load images from an archive that docker save or an OCI tool made",
        "images:load",
        (
            Option(("-i", "--input"), "read from a file instead of standard input", "FILE", complete="path"),
            Option(("-q", "--quiet"), "no progress"),
        ),
        (),
        (("image", "load"),),
        ("--platform",),
    ),
    Command(
        ("import",),
        "Make an image from the tar archive of a root file system",
        "images:import_",
        (
            Option(("-c", "--change"), "set a configuration: 'CMD [\"sh\"]'", "INSTRUCTION", many=True),
            Option(("-m", "--message"), "a message for the history", "TEXT"),
        ),
        (Argument("FILE|-", complete="path"), Argument("REPOSITORY[:TAG]", "?")),
        (("image", "import"),),
        ("--platform",),
    ),
    Command(
        ("tag",),
        "Give an image a further name",
        "images:tag",
        (),
        (Argument("SOURCE", complete="image"), Argument("TARGET")),
        (("image", "tag"),),
    ),
    Command(
        ("image", "inspect"),
        "Show all there is to know of images, as JSON",
        "inspect:inspect_image",
        (INSPECT_FORMAT,),
        (Argument("IMAGE", "+", complete="image"),),
        later=("--platform",),
    ),
    Command(
        ("image", "capture"),
        "Make an image of the Python environment that is running",
        "images:capture",
        (
            Option(("-t", "--tag"), "name of the image", "NAME[:TAG]"),
            Option(("--prefix",), "another environment than the one that runs", "DIR", complete="path"),
            Option(("-q", "--quiet"), "print the id only"),
        ),
        (Argument("PATH", "*", complete="path"),),
    ),
)
