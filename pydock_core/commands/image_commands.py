"""The command table's entries for images and registries.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORCE,
    NO_TRUNC,
    PLATFORM,
    PROGRESS,
    PRUNE_FILTER,
    QUIET,
    Argument,
    Command,
    Option,
    document_format,
    filter_option,
    listing_format,
)

_ALL_TAGS = Option(("-a", "--all-tags"), "all tags of the repository")
_NO_PROGRESS = Option(("-q", "--quiet"), "no progress, only the result")
# Docker's default, and the only behaviour here; the opposite is refused.
_NO_TRUST = Option(
    ("--disable-content-trust",), "skip the verification of signatures (always)", default="true"
)
_NO_TRUST_REASON = {
    "--disable-content-trust=false": "signatures of Docker Content Trust (Notary version 1) are not verified; digests always are"
}
_CHANGE = Option(("-c", "--change"), "set a configuration: 'CMD [\"sh\"]'", "INSTRUCTION", many=True)
_OUTPUT = Option(("-o", "--output"), "write to a file instead of standard output", "FILE", complete="path")

IMAGE_COMMANDS: tuple[Command, ...] = (
    Command(
        ("images",),
        "List images",
        "images:images",
        (
            Option(("-a", "--all"), "include intermediate images; PyDock has none"),
            Option(("--digests",), "show the digests in registries"),
            filter_option("dangling=true, label=KEY, reference='busy*', until=24h"),
            listing_format("{{.Repository}}:{{.Tag}}"),
            NO_TRUNC,
            QUIET,
            Option(("--tree",), "show each image's platform below it"),
        ),
        (Argument("REPOSITORY[:TAG]", "?", complete="image"),),
        (("image", "ls"), ("image", "list")),
    ),
    Command(
        ("history",),
        "Show the history of an image",
        "images:history",
        (
            listing_format("{{.CreatedBy}}"),
            Option(
                ("-H", "--human"), "sizes and dates for people; =false for bytes and times", default="true"
            ),
            NO_TRUNC,
            PLATFORM,
            QUIET,
        ),
        (Argument("IMAGE", complete="image"),),
        (("image", "history"),),
    ),
    Command(
        ("tag",),
        "Give an image another name",
        "images:tag",
        (),
        (Argument("SOURCE", complete="image"), Argument("TARGET")),
        (("image", "tag"),),
    ),
    Command(
        ("rmi",),
        "Remove images",
        "images:rmi",
        (
            Option(("-f", "--force"), "even if a stopped container uses it"),
            Option(("--no-prune",), "keep untagged parents; PyDock has none"),
            Option(PLATFORM.flags, PLATFORM.help, PLATFORM.metavar, many=True),
        ),
        (Argument("IMAGE", "+", complete="image"),),
        (("image", "rm"), ("image", "remove")),
    ),
    Command(
        ("pull",),
        "Pull an image from a registry",
        "registries:pull",
        (_ALL_TAGS, _NO_TRUST, PLATFORM, PROGRESS, _NO_PROGRESS),
        (Argument("NAME[:TAG|@DIGEST]", complete="image"),),
        (("image", "pull"),),
        refused=_NO_TRUST_REASON,
    ),
    Command(
        ("push",),
        "Push an image to a registry",
        "registries:push",
        (_ALL_TAGS, _NO_TRUST, PLATFORM, PROGRESS, _NO_PROGRESS),
        (Argument("NAME[:TAG]", complete="image"),),
        (("image", "push"),),
        refused=_NO_TRUST_REASON,
    ),
    Command(
        ("login",),
        "Log in to a registry (Docker Hub by default)",
        "registries:login",
        (
            Option(("-p", "--password"), "password or access token; prefer --password-stdin", "TEXT"),
            Option(("--password-stdin",), "read the password from standard input"),
            Option(("-u", "--username"), "user name", "NAME"),
        ),
        (Argument("SERVER", "?"),),
    ),
    Command(
        ("logout",),
        "Remove the stored credentials of a registry",
        "registries:logout",
        (),
        (Argument("SERVER", "?"),),
    ),
    Command(
        ("search",),
        "Search Docker Hub, or the registry that the term begins with (localhost:5000/tensor)",
        "registries:search",
        (
            Option(
                ("-f", "--filter"), "is-official=true, is-automated=true, stars=3", "KEY=VALUE", many=True
            ),
            listing_format("{{.Name}} {{.StarCount}}"),
            Option(("--limit",), "largest number of results, 1 to 100", "NUMBER", default="25"),
            Option(("--list-tags",), "list the tags of the repository TERM"),
            Option(("--no-trunc",), "do not shorten descriptions"),
        ),
        (Argument("TERM"),),
    ),
    Command(
        ("load",),
        "Load images from an archive of docker save or an OCI tool",
        "archives:load",
        (
            Option(("-i", "--input"), "read from a file instead of standard input", "FILE", complete="path"),
            PLATFORM,
            PROGRESS,
            _NO_PROGRESS,
        ),
        (),
        (("image", "load"),),
    ),
    Command(
        ("save",),
        "Write images to an archive that docker load and OCI tools read",
        "archives:save",
        (_OUTPUT, PLATFORM, PROGRESS),
        (Argument("IMAGE", "+", complete="image"),),
        (("image", "save"),),
    ),
    Command(
        ("import",),
        "Make an image from the tar archive of a root file system",
        "archives:import_",
        (_CHANGE, Option(("-m", "--message"), "a message for the history", "TEXT"), PLATFORM, PROGRESS),
        (Argument("FILE|-", complete="path"), Argument("REPOSITORY[:TAG]", "?")),
        (("image", "import"),),
    ),
    Command(
        ("image", "inspect"),
        "Show details of images as JSON",
        "inspect:inspect_image",
        (document_format("{{.Config.Cmd}}", "-f"), PLATFORM),
        (Argument("IMAGE", "+", complete="image"),),
    ),
    Command(
        ("image", "prune"),
        "Remove unused images, and the remains of interrupted pulls",
        "disk:image_prune",
        (
            Option(("-a", "--all"), "all unused images, not only those without a name"),
            PRUNE_FILTER,
            FORCE,
        ),
    ),
    Command(
        ("image", "capture"),
        "Make an image of the running Python environment",
        "images:capture",
        (
            Option(("-t", "--tag"), "name of the image", "NAME[:TAG]"),
            Option(("--prefix",), "the environment, if it is not the running one", "DIR", complete="path"),
            PROGRESS,
            Option(("-q", "--quiet"), "print only the id"),
        ),
        (Argument("PATH", "*", complete="path"),),
    ),
    Command(
        ("commit",),
        "Make an image of a container's changes",
        "archives:commit",
        (
            Option(("-a", "--author"), "author: 'Name <address>'", "TEXT"),
            _CHANGE,
            Option(("-m", "--message"), "a message for the history", "TEXT"),
            Option(("-p", "--pause"), "pause the container during the commit, unless =false", default="true"),
            PROGRESS,
        ),
        (Argument("CONTAINER", complete="container"), Argument("REPOSITORY[:TAG]", "?")),
        (("container", "commit"),),
    ),
    Command(
        ("export",),
        "Write a container's file system to a tar archive",
        "archives:export",
        (_OUTPUT,),
        (Argument("CONTAINER", complete="container"),),
        (("container", "export"),),
    ),
    Command(
        ("diff",),
        "List what a container added (A), changed (C) and deleted (D) in its file system",
        "containers:diff",
        (),
        (Argument("CONTAINER", complete="container"),),
        (("container", "diff"),),
    ),
)
