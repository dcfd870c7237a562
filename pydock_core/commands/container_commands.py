"""The command table's entries for containers.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORCE,
    NO_TRUNC,
    PRUNE_FILTER,
    QUIET,
    SIZE,
    Argument,
    Command,
    Option,
    document_format,
    filter_option,
    listing_format,
)

_STOP = (
    Option(("-s", "--signal"), "signal to send first", "SIGNAL", complete="signal"),
    Option(("-t", "--timeout", "--time"), "seconds to wait before killing it", "SECONDS"),
)

# The file option precedes the option for single values, which override it.
CREATE_OPTIONS = (
    Option(("-a", "--attach"), "attach to stdin, stdout or stderr", "STREAM", many=True),
    Option(("-i", "--interactive"), "keep standard input open", field="OpenStdin"),
    Option(("-t", "--tty"), "give the container a terminal", field="Tty"),
    Option(
        ("--env-file",),
        "read environment variables from a file",
        "FILE",
        many=True,
        complete="path",
        field="Env",
        convert="environment_files",
    ),
    Option(
        ("-e", "--env"),
        "set an environment variable; NAME alone takes the host's value",
        "NAME[=VALUE]",
        many=True,
        field="Env",
        convert="environment",
    ),
    Option(
        ("-v", "--volume"),
        "bind a host directory or a volume",
        "SOURCE:TARGET[:OPTIONS]",
        many=True,
        complete="path",
        field="Binds",
        convert="binds",
    ),
    Option(
        ("--mount",),
        "attach a file system: type=bind,source=…,target=…",
        "SPEC",
        many=True,
        field="Mounts",
        convert="mount",
    ),
    Option(("--tmpfs",), "mount a tmpfs", "TARGET[:OPTIONS]", many=True, field="Tmpfs", convert="tmpfs"),
    Option(
        ("-p", "--publish"),
        "publish a port on the host",
        "[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]",
        many=True,
        field="PortBindings",
        convert="ports",
    ),
    Option(
        ("--expose",),
        "declare that the container listens on a port",
        "PORT[/PROTOCOL]",
        many=True,
        field="ExposedPorts",
        convert="exposed_ports",
    ),
    Option(("--name",), "name of the container", "NAME"),
    Option(("--rm",), "remove the container when it ends", field="AutoRemove"),
    Option(("-w", "--workdir"), "working directory in the container", "DIR", field="WorkingDir"),
    Option(("-u", "--user"), "user and group: name or number", "USER[:GROUP]", field="User"),
    Option(("--group-add",), "additional group", "GROUP", many=True, field="GroupAdd"),
    Option(
        ("--entrypoint",), "replace the image's entry point", "COMMAND", field="Entrypoint", convert="word"
    ),
    Option(
        ("--network", "--net"),
        "none, host, bridge, or container:NAME",
        "MODE",
        complete="network",
        field="NetworkMode",
    ),
    Option(("-h", "--hostname"), "host name in the container", "NAME", field="Hostname"),
    Option(
        ("--add-host",),
        "add a line to /etc/hosts; the address may be host-gateway",
        "HOST:ADDRESS",
        many=True,
        field="ExtraHosts",
        convert="host",
    ),
    Option(
        ("--label-file",),
        "read labels from a file",
        "FILE",
        many=True,
        complete="path",
        field="Labels",
        convert="label_files",
    ),
    Option(("-l", "--label"), "a label", "KEY[=VALUE]", many=True, field="Labels", convert="labels"),
    Option(
        ("--annotation",),
        "an annotation for the OCI runtime",
        "NAME=VALUE",
        many=True,
        field="Annotations",
        convert="pairs",
    ),
    Option(("-m", "--memory"), "memory limit: 512m, 2g", "BYTES", field="Memory", convert="bytes"),
    Option(
        ("--memory-swap",),
        "limit of memory plus swap; -1 for unlimited",
        "BYTES",
        field="MemorySwap",
        convert="swap",
    ),
    Option(("--cpus",), "number of processors: 1.5", "NUMBER", field="NanoCpus", convert="cpus"),
    Option(
        ("-c", "--cpu-shares"),
        "relative weight of processor time",
        "NUMBER",
        field="CpuShares",
        convert="integer",
    ),
    Option(("--cpuset-cpus",), "processors it may run on: 0-3,5", "LIST", field="CpusetCpus"),
    Option(
        ("--pids-limit",),
        "limit of processes; -1 for unlimited",
        "NUMBER",
        field="PidsLimit",
        convert="integer",
    ),
    Option(
        ("--ulimit",),
        "a resource limit: nofile=1024:2048",
        "NAME=SOFT[:HARD]",
        many=True,
        field="Ulimits",
        convert="ulimit",
    ),
    Option(
        ("--oom-score-adj",),
        "preference of the OOM killer, -1000 to 1000",
        "NUMBER",
        field="OomScoreAdj",
        convert="integer",
    ),
    Option(
        ("--sysctl",),
        "a namespaced kernel parameter",
        "NAME=VALUE",
        many=True,
        field="Sysctls",
        convert="pairs",
    ),
    Option(("--read-only",), "mount the root file system read-only", field="ReadonlyRootfs"),
    Option(("--shm-size",), "size of /dev/shm", "BYTES", field="ShmSize", convert="bytes"),
    Option(("--cap-add",), "add a capability", "CAPABILITY", many=True, field="CapAdd"),
    Option(("--cap-drop",), "drop a capability", "CAPABILITY", many=True, field="CapDrop"),
    Option(("--privileged",), "all capabilities and devices, no seccomp filter", field="Privileged"),
    Option(
        ("--security-opt",),
        "no-new-privileges, seccomp=unconfined or seccomp=FILE",
        "OPTION",
        many=True,
        field="SecurityOpt",
        convert="security",
    ),
    Option(
        ("--device",),
        "add a device of the host",
        "HOST[:CONTAINER[:rwm]]",
        many=True,
        complete="path",
        field="Devices",
        convert="device",
    ),
    Option(("--stop-signal",), "signal that stops it", "SIGNAL", complete="signal", field="StopSignal"),
    Option(
        ("--stop-timeout",),
        "seconds to wait before killing it",
        "SECONDS",
        field="StopTimeout",
        convert="seconds",
    ),
    Option(
        ("--runtime",),
        "embedded, or an OCI runtime: crun, runc, nvidia, a path",
        "NAME",
        complete="runtime",
        field="Runtime",
    ),
    Option(
        ("--log-driver",),
        "log driver: json-file or none",
        "DRIVER",
        default="json-file",
        field="LogConfig.Type",
    ),
    Option(
        ("--log-opt",),
        "log option: max-size=10m, max-file=3",
        "NAME=VALUE",
        many=True,
        field="LogConfig.Config",
        convert="pairs",
    ),
    Option(("--cidfile",), "write the container's id to a file", "FILE", complete="path"),
    Option(("--pull",), "pull the image: missing, always, never (default missing, or PYDOCK_PULL)", "POLICY"),
    Option(("--platform",), "choose the image for a platform: linux/arm64", "OS[/ARCH[/VARIANT]]"),
    Option(("-q", "--quiet"), "do not show the pull"),
)
_CREATE_LATER = (
    "--add-device --blkio-weight --blkio-weight-device --cgroup-parent --cgroupns --cpu-count --cpu-percent "
    "--cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpuset-mems --device-cgroup-rule "
    "--device-read-bps --device-read-iops --device-write-bps --device-write-iops --disable-content-trust --dns "
    "--dns-opt --dns-option --dns-search --domainname --gpus --health-cmd --health-interval --health-retries "
    "--health-start-interval --health-start-period --health-timeout --init --io-maxbandwidth --io-maxiops --ip "
    "--ip6 --ipc --isolation --kernel-memory --link --link-local-ip --mac-address "
    "--memory-reservation --memory-swappiness --net-alias --network-alias --no-healthcheck --oom-kill-disable "
    "--pid --publish-all -P --restart --storage-opt --use-api-socket --userns --uts "
    "--volume-driver --volumes-from"
).split()

_DETACH_KEYS = Option(("--detach-keys",), "key sequence that detaches: ctrl-p,ctrl-q", "KEYS")
_SIG_PROXY = Option(
    ("--sig-proxy",), "forward signals to the container, unless --sig-proxy=false", default="true"
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
    """Return a command on containers: ``dock NAME`` and ``dock container NAME`` are the same."""
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

CONTAINER_COMMANDS: tuple[Command, ...] = (
    Command(
        ("run",),
        "Create a container from an image and run a command in it",
        "run:run",
        (
            *CREATE_OPTIONS,
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
        CREATE_OPTIONS,
        _IMAGE_AND_COMMAND,
        (("container", "create"),),
        tuple(_CREATE_LATER),
    ),
    Command(
        ("start",),
        "Start stopped containers",
        "run:start",
        (
            Option(("-a", "--attach"), "attach to its output, and forward signals"),
            Option(("-i", "--interactive"), "attach standard input, too"),
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
            Option(("-a", "--all"), "include stopped containers"),
            filter_option("name=web, status=running, label=KEY"),
            listing_format("{{.Names}}: {{.Status}}"),
            Option(("-n", "--last"), "the last NUMBER created", "NUMBER"),
            Option(("-l", "--latest"), "the last one created"),
            NO_TRUNC,
            QUIET,
            SIZE,
        ),
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
            Option(("-f", "--force"), "kill running containers"),
            Option(("-v", "--volumes"), "remove their anonymous volumes, too"),
        ),
        _SOME,
        later=("-l", "--link"),
        aliases=("container remove",),
    ),
    _container("rename", "Give a container another name", (), (*_ONE, Argument("NAME"))),
    _container(
        "logs",
        "Show a container's output",
        (
            Option(("-f", "--follow"), "follow the output"),
            Option(("-n", "--tail"), "only the last NUMBER lines", "NUMBER", default="all"),
            Option(("-t", "--timestamps"), "show the time before each line"),
            Option(("--since",), "only since a time (RFC 3339), or a duration before now (10m)", "TIME"),
            Option(("--until",), "only until a time (RFC 3339), or a duration before now (10m)", "TIME"),
        ),
        _ONE,
        later=("--details",),
    ),
    _container("wait", "Wait until containers end, and print their exit codes", (), _SOME),
    _container("port", "Show where a container's ports are published", (), (*_ONE, Argument("PORT", "?"))),
    Command(
        ("container", "inspect"),
        "Show details of containers as JSON",
        "inspect:inspect_container",
        (document_format("{{.Name}}", "-f"), SIZE),
        _SOME,
    ),
    Command(
        ("container", "prune"),
        "Remove all stopped containers",
        "disk:container_prune",
        (PRUNE_FILTER, FORCE),
    ),
)
