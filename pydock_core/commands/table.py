"""The command table: what commands there are, and what words each takes.

Pure data.  The parser, the help, the completions and the magics are made from it, so that the same words
mean the same everywhere.  What Docker has and PyDock has not yet stands in ``later``, and is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass

FLAG = ""  # an option without a value
"""``Option.metavar`` of an option that takes no value."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        flags: "-e", "--env"; the long one names the parsed value (``--env-file`` gives ``env_file``).
        help: one line.
        metavar: what the value is called; FLAG where there is none.
        many: may be given several times, and collects a list.
        default: the value where the option is not given (None, or False for a flag).
        complete: what the value is completed with: "container", "running", "image", "path", "volume",
            "network", "runtime", "signal" or None.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str = FLAG
    many: bool = False
    default: str | None = None
    complete: str | None = None

    @property
    def takes_value(self) -> bool:
        return self.metavar != FLAG


@dataclass(frozen=True, slots=True)
class Argument:
    """One positional word: ``count`` is "1", "?", "*", "+", or "rest" (everything that follows, options included)."""

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
        aliases: other words for the same, ("container", "ps").
        later: Docker's options for it that are not there yet.
    """

    path: tuple[str, ...]
    summary: str
    handler: str
    options: tuple[Option, ...] = ()
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()
    later: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(self.path)


_FORMAT = Option(("--format",), "table, json, or a Go template: '{{.Names}}'", "FORMAT")
_INSPECT_FORMAT = Option(("-f", "--format"), "json, or a Go template: '{{.Name}}'", "FORMAT")
_FILTER = Option(("-f", "--filter"), "show only what matches: name=web", "KEY=VALUE", many=True)
_NO_TRUNC = Option(("--no-trunc",), "do not shorten ids and commands")
_QUIET = Option(("-q", "--quiet"), "print ids only")
_STOP = (
    Option(("-s", "--signal"), "signal to send first", "SIGNAL", complete="signal"),
    Option(("-t", "--timeout", "--time"), "seconds to wait before it is killed", "SECONDS"),
)

_CREATE_OPTIONS = (
    Option(("-a", "--attach"), "attach to stdin, stdout or stderr", "STREAM", many=True),
    Option(("-i", "--interactive"), "keep standard input open"),
    Option(("-t", "--tty"), "give the container a terminal"),
    Option(("-e", "--env"), "set an environment variable, or pass on the host's", "NAME[=VALUE]", many=True),
    Option(("--env-file",), "read environment variables from a file", "FILE", many=True, complete="path"),
    Option(
        ("-v", "--volume"),
        "bind a host directory or a volume",
        "SOURCE:TARGET[:OPTIONS]",
        many=True,
        complete="path",
    ),
    Option(("--mount",), "attach a file system: type=bind,source=…,target=…", "SPEC", many=True),
    Option(("--tmpfs",), "mount a tmpfs", "TARGET[:OPTIONS]", many=True),
    Option(
        ("-p", "--publish"), "publish a port on the host", "[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]", many=True
    ),
    Option(("--expose",), "say that the container listens on a port", "PORT[/PROTOCOL]", many=True),
    Option(("--name",), "name of the container", "NAME"),
    Option(("--rm",), "remove the container when it ends"),
    Option(("-w", "--workdir"), "working directory in the container", "DIR"),
    Option(("-u", "--user"), "user and group: name or number", "USER[:GROUP]"),
    Option(("--group-add",), "a further group", "GROUP", many=True),
    Option(("--entrypoint",), "replace the image's entry point", "COMMAND"),
    Option(("--network", "--net"), "none, host, bridge, or container:NAME", "MODE", complete="network"),
    Option(("-h", "--hostname"), "host name in the container", "NAME"),
    Option(("--add-host",), "a line for /etc/hosts", "HOST:ADDRESS", many=True),
    Option(("-l", "--label"), "a label", "KEY[=VALUE]", many=True),
    Option(("--label-file",), "read labels from a file", "FILE", many=True, complete="path"),
    Option(("-m", "--memory"), "memory limit: 512m, 2g", "BYTES"),
    Option(("--memory-swap",), "limit of memory and swap together; -1 for none", "BYTES"),
    Option(("--cpus",), "processors' worth of time: 1.5", "NUMBER"),
    Option(("-c", "--cpu-shares"), "relative weight of processor time", "NUMBER"),
    Option(("--cpuset-cpus",), "processors it may run on: 0-3,5", "LIST"),
    Option(("--pids-limit",), "how many processes it may have; -1 for no limit", "NUMBER"),
    Option(("--ulimit",), "a resource limit: nofile=1024:2048", "NAME=SOFT[:HARD]", many=True),
    Option(("--oom-score-adj",), "how readily the kernel kills it, -1000 to 1000", "NUMBER"),
    Option(("--sysctl",), "a namespaced kernel parameter", "NAME=VALUE", many=True),
    Option(("--read-only",), "mount the root file system read-only"),
    Option(("--shm-size",), "size of /dev/shm", "BYTES"),
    Option(("--cap-add",), "add a capability", "CAPABILITY", many=True),
    Option(("--cap-drop",), "drop a capability", "CAPABILITY", many=True),
    Option(("--privileged",), "all capabilities and devices, no seccomp filter"),
    Option(("--security-opt",), "no-new-privileges, seccomp=unconfined or seccomp=FILE", "OPTION", many=True),
    Option(
        ("--device",), "give it a device of the host", "HOST[:CONTAINER[:rwm]]", many=True, complete="path"
    ),
    Option(("--stop-signal",), "signal that stops it", "SIGNAL", complete="signal"),
    Option(("--stop-timeout",), "seconds to wait before it is killed", "SECONDS"),
    Option(
        ("--runtime",), "embedded, or an OCI runtime: crun, runc, nvidia, a path", "NAME", complete="runtime"
    ),
    Option(("--cidfile",), "write the container's id to a file", "FILE", complete="path"),
)
_CREATE_LATER = (
    "--add-device --annotation --blkio-weight --blkio-weight-device --cgroup-parent --cgroupns --cpu-count --cpu-percent "
    "--cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpuset-mems --device-cgroup-rule "
    "--device-read-bps --device-read-iops --device-write-bps --device-write-iops --disable-content-trust --dns "
    "--dns-opt --dns-option --dns-search --domainname --gpus --health-cmd --health-interval --health-retries "
    "--health-start-interval --health-start-period --health-timeout --init --io-maxbandwidth --io-maxiops --ip "
    "--ip6 --ipc --isolation --kernel-memory --link --link-local-ip --log-driver --log-opt --mac-address "
    "--memory-reservation --memory-swappiness --net-alias --network-alias --no-healthcheck --oom-kill-disable "
    "--pid --platform --publish-all -P --pull --quiet -q --restart --storage-opt --use-api-socket --userns --uts "
    "--volume-driver --volumes-from"
).split()

_DETACH_KEYS = Option(("--detach-keys",), "key sequence that detaches: ctrl-p,ctrl-q", "KEYS")
_SIG_PROXY = Option(
    ("--sig-proxy",), "pass signals on to the container (true, false)", "BOOLEAN", default="true"
)
_IMAGE_AND_COMMAND = (Argument("IMAGE", complete="image"), Argument("COMMAND", "rest"))


def _container(
    name: str,
    summary: str,
    options: tuple[Option, ...] = (),
    arguments: tuple[Argument, ...] = (),
    *,
    later: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Command:
    """A command on containers: ``dock NAME`` and ``dock container NAME`` are the same."""
    words = tuple(alias.split() for alias in aliases)
    return Command(
        (name,),
        summary,
        f"containers:{name}",
        options,
        arguments,
        (("container", name), *(tuple(word) for word in words)),
        later,
    )


_ONE = (Argument("CONTAINER", complete="container"),)
_SOME = (Argument("CONTAINER", "+", complete="container"),)
_RUNNING = (Argument("CONTAINER", "+", complete="running"),)

COMMANDS: tuple[Command, ...] = (
    Command(
        ("run",),
        "Create a container from an image and run a command in it",
        "run:run",
        (
            *_CREATE_OPTIONS,
            Option(("-d", "--detach"), "run in the background and print the id"),
            _DETACH_KEYS,
            _SIG_PROXY,
        ),
        _IMAGE_AND_COMMAND,
        (("container", "run"),),
        tuple(_CREATE_LATER),
    ),
    Command(
        ("create",),
        "Create a container without starting it",
        "run:create",
        _CREATE_OPTIONS,
        _IMAGE_AND_COMMAND,
        (("container", "create"),),
        tuple(_CREATE_LATER),
    ),
    Command(
        ("start",),
        "Start containers that are stopped",
        "run:start",
        (
            Option(("-a", "--attach"), "attach to its output, and pass signals on"),
            Option(("-i", "--interactive"), "attach standard input too"),
            _DETACH_KEYS,
        ),
        _SOME,
        (("container", "start"),),
        ("--checkpoint", "--checkpoint-dir"),
    ),
    Command(
        ("attach",),
        "Attach to a running container",
        "run:attach",
        (_DETACH_KEYS, Option(("--no-stdin",), "do not attach standard input"), _SIG_PROXY),
        (Argument("CONTAINER", complete="running"),),
        (("container", "attach"),),
    ),
    Command(
        ("exec",),
        "Run a command in a running container",
        "run:exec_",
        (
            Option(("-d", "--detach"), "run in the background"),
            Option(("-i", "--interactive"), "keep standard input open"),
            Option(("-t", "--tty"), "give the command a terminal"),
            Option(("-e", "--env"), "set an environment variable", "NAME[=VALUE]", many=True),
            Option(
                ("--env-file",), "read environment variables from a file", "FILE", many=True, complete="path"
            ),
            Option(("-w", "--workdir"), "working directory in the container", "DIR"),
            Option(("-u", "--user"), "user and group", "USER[:GROUP]"),
            Option(("--privileged",), "all capabilities"),
            _DETACH_KEYS,
        ),
        (Argument("CONTAINER", complete="running"), Argument("COMMAND", "rest")),
        (("container", "exec"),),
    ),
    _container(
        "ps",
        "List containers",
        (
            Option(("-a", "--all"), "all, not only those that run"),
            _FILTER,
            _FORMAT,
            Option(("-n", "--last"), "the last NUMBER created", "NUMBER"),
            Option(("-l", "--latest"), "the last one created"),
            _NO_TRUNC,
            _QUIET,
        ),
        later=("-s", "--size"),
        aliases=("container ls", "container list"),
    ),
    _container("stop", "Stop running containers", _STOP, _RUNNING),
    _container("restart", "Stop containers and start them again", _STOP, _SOME),
    _container(
        "kill",
        "Send a signal to running containers (KILL)",
        (Option(("-s", "--signal"), "signal to send", "SIGNAL", default="KILL", complete="signal"),),
        _RUNNING,
    ),
    _container(
        "rm",
        "Remove containers",
        (
            Option(("-f", "--force"), "kill those that run"),
            Option(("-v", "--volumes"), "remove their anonymous volumes too"),
        ),
        _SOME,
        later=("-l", "--link"),
        aliases=("container remove",),
    ),
    _container("rename", "Give a container another name", (), (*_ONE, Argument("NAME"))),
    _container(
        "logs",
        "Show what a container has written",
        (
            Option(("-f", "--follow"), "go on as it writes"),
            Option(("-n", "--tail"), "only the last NUMBER lines", "NUMBER", default="all"),
            Option(("-t", "--timestamps"), "the time before each line"),
            Option(("--since",), "only since a time (RFC 3339) or a while ago (10m)", "TIME"),
            Option(("--until",), "only until a time (RFC 3339) or a while ago (10m)", "TIME"),
        ),
        _ONE,
        later=("--details",),
    ),
    _container("wait", "Wait until containers end, and print their exit codes", (), _SOME),
    _container("port", "Show where a container's ports are published", (), (*_ONE, Argument("PORT", "?"))),
    Command(
        ("inspect",),
        "Show all there is to know of containers or images, as JSON",
        "inspect:inspect",
        (_INSPECT_FORMAT, Option(("--type",), "container or image", "TYPE")),
        (Argument("NAME", "+", complete="container"),),
        later=("-s", "--size"),
    ),
    Command(
        ("container", "inspect"),
        "Show all there is to know of containers, as JSON",
        "inspect:inspect_container",
        (_INSPECT_FORMAT,),
        _SOME,
        later=("-s", "--size"),
    ),
    Command(
        ("images",),
        "List images",
        "images:images",
        (
            Option(("-a", "--all"), "those without a name too"),
            _FILTER,
            _FORMAT,
            _NO_TRUNC,
            _QUIET,
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
        (_INSPECT_FORMAT,),
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
    Command(
        ("doctor",),
        "Show what this host offers and lacks, and how to mend it",
        "system:doctor",
        (_FORMAT,),
    ),
    Command(("version",), "Show the version", "system:version", (_FORMAT,)),
    Command(
        ("info",), "Show the state of this PyDock", "system:info", (_FORMAT,), aliases=(("system", "info"),)
    ),
)

GROUPS = {"container": "Manage containers", "image": "Manage images", "system": "Manage PyDock"}

LATER_COMMANDS = frozenset(
    (
        "pull push login logout search save export commit history build buildx builder compose cp diff events pause unpause "
        "stats top update volume network manifest context plugin swarm service stack node secret config checkpoint "
        "trust scout init"
    ).split()
)
"""Docker's commands that come with a later version: refused by name."""
LATER_SUBCOMMANDS = frozenset(
    {("container", word) for word in "commit cp diff export pause unpause prune stats top update".split()}
    | {("image", word) for word in "build history prune pull push save".split()}
    | {("system", word) for word in "df events prune dial-stdio".split()}
)


def find(words: tuple[str, ...]) -> tuple[Command, int] | None:
    """Return the command that ``words`` begin with and how many words name it; None where there is none."""
    for length in (2, 1):
        head = words[:length]
        if len(head) < length:
            continue
        for command in COMMANDS:
            if head == command.path or head in command.aliases:
                return command, length
    return None
