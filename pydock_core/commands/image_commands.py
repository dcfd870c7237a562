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
_NO_TRUST = Option(("--disable-content-trust",), "no signatures are looked at: always so", default="true")
_NO_TRUST_REASON = {
    "--disable-content-trust=false": "signatures of Docker Content Trust (Notary version 1) are not looked at; digests always are"
}
_CHANGE = Option(("-c", "--change"), "set a configuration: 'CMD [\"sh\"]'", "INSTRUCTION", many=True)
_OUTPUT = Option(("-o", "--output"), "write to a file instead of standard output", "FILE", complete="path")

IMAGE_COMMANDS: tuple[Command, ...] = (
    Command(
        ("images",),
        "List images",
        "images:images",
        (
            Option(("-a", "--all"), "intermediate images too; there are none here"),
            Option(("--digests",), "show under what digests registries have them"),
            filter_option("dangling=true, label=KEY, reference='busy*', until=24h"),
            listing_format("{{.Repository}}:{{.Tag}}"),
            NO_TRUNC,
            QUIET,
            Option(("--tree",), "show the platform that each image is for below it"),
        ),
        (Argument("REPOSITORY[:TAG]", "?", complete="image"),),
        (("image", "ls"), ("image", "list")),
    ),
    Command(
        ("history",),
        "Show the steps in which an image was made",
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
        "Give an image a further name",
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
            Option(("-f", "--force"), "also where a stopped container uses it"),
            Option(("--no-prune",), "keep untagged parents; there are none here"),
            Option(PLATFORM.flags, PLATFORM.help, PLATFORM.metavar, many=True),
        ),
        (Argument("IMAGE", "+", complete="image"),),
        (("image", "rm"), ("image", "remove")),
    ),
    Command(
        ("pull",),
        "Get an image from a registry",
        "registries:pull",
        (_ALL_TAGS, _NO_TRUST, PLATFORM, PROGRESS, _NO_PROGRESS),
        (Argument("NAME[:TAG|@DIGEST]", complete="image"),),
        (("image", "pull"),),
        refused=_NO_TRUST_REASON,
    ),
    Command(
        ("push",),
        "Send an image to a registry",
        "registries:push",
        (_ALL_TAGS, _NO_TRUST, PLATFORM, PROGRESS, _NO_PROGRESS),
        (Argument("NAME[:TAG]", complete="image"),),
        (("image", "push"),),
        refused=_NO_TRUST_REASON,
    ),
    Command(
        ("login",),
        "Log in to a registry; to Docker Hub where none is named",
        "registries:login",
        (
            Option(("-p", "--password"), "password or access token; better --password-stdin", "TEXT"),
            Option(("--password-stdin",), "read the password from standard input"),
            Option(("-u", "--username"), "user name", "NAME"),
        ),
        (Argument("SERVER", "?"),),
    ),
    Command(
        ("logout",),
        "Forget the credentials of a registry",
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
            Option(("--limit",), "how many results at most, 1 to 100", "NUMBER", default="25"),
            Option(("--list-tags",), "list the tags of the repository that TERM names"),
            Option(("--no-trunc",), "do not shorten descriptions"),
        ),
        (Argument("TERM"),),
    ),
    Command(
        ("load",),
        "Load images from an archive that docker save or an OCI tool made",
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
        "Show all there is to know of images, as JSON",
        "inspect:inspect_image",
        (document_format("{{.Config.Cmd}}", "-f"), PLATFORM),
        (Argument("IMAGE", "+", complete="image"),),
    ),
    Command(
        ("image", "prune"),
        "Remove images that nothing uses, and the remains of interrupted pulls",
        "disk:image_prune",
        (
            Option(("-a", "--all"), "all that no container uses, not only those without a name"),
            PRUNE_FILTER,
            FORCE,
        ),
    ),
    Command(
        ("image", "capture"),
        "Make an image of the Python environment that is running",
        "images:capture",
        (
            Option(("-t", "--tag"), "name of the image", "NAME[:TAG]"),
            Option(("--prefix",), "another environment than the one that runs", "DIR", complete="path"),
            PROGRESS,
            Option(("-q", "--quiet"), "print the id only"),
        ),
        (Argument("PATH", "*", complete="path"),),
    ),
    Command(
        ("commit",),
        "Make an image of a container's changes",
        "archives:commit",
        (
            Option(("-a", "--author"), "who made it: 'Name <address>'", "TEXT"),
            _CHANGE,
            Option(("-m", "--message"), "a message for the history", "TEXT"),
            Option(("-p", "--pause"), "pause the container meanwhile; =false for not", default="true"),
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
