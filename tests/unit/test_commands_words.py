"""What the words of run and create become."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.create_words import build_request
from pydock_core.commands.parser import Parsed, parse
from pydock_core.commands.values import parse_boolean, parse_bytes
from pydock_core.engine import signal_name, signal_number
from pydock_core.engine.moment import parse_moment_ns
from pydock_core.errors import InvalidError, NotFoundError, PyDockError, UnsupportedError
from pydock_core.spec.definition import CreateRequest
from pydock_core.spec.mount import Mount, read_mounts
from pydock_core.spec.port import read_ports
from pydock_core.supervision.plan import PublishedPort


def request_of(
    *words: str, environment: dict[str, str] | None = None, directory: str = "/home/me"
) -> CreateRequest:
    parsed = parse(["run", *words])
    assert isinstance(parsed, Parsed)
    return build_request(parsed.words, environment or {}, directory)


def request_of_line(line: str, environment: dict[str, str] | None = None) -> CreateRequest:
    return request_of(*line.split(), environment=environment)


def published(*texts: str) -> tuple[PublishedPort, ...]:
    words = [word for text in texts for word in ("-p", text)]
    return read_ports(request_of(*words, "image")["HostConfig"]["PortBindings"])


def test_everything_at_once() -> None:
    request = request_of_line(
        "--rm -it -e A=1 -e HOST -v ./data:/data:ro -v cache:/cache -v /anonymous --mount type=tmpfs,target=/t,tmpfs-size=1m "
        "--tmpfs /run:size=2m -p 8080:80 -p 127.0.0.2::53/udp --expose 6006 --name x -w /w -u 1:2 --group-add 5 "
        "--entrypoint /e --network none -h box --add-host db=[fe80::1] -l a=b -m 64m --memory-swap 128m --cpus 0.5 "
        "--pids-limit 10 --ulimit nofile=10:20 --sysctl net.ipv4.ip_forward=1 --read-only --shm-size 1m "
        "--cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --security-opt seccomp=unconfined "
        "--device /dev/null:/dev/nil:r --stop-signal SIGINT --stop-timeout 3 --runtime crun image a b",
        {"HOST": "h"},
    )
    host = request["HostConfig"]
    assert request["Env"] == ["A=1", "HOST=h"]
    assert read_mounts(request, {"/anonymous": "made"}) == [
        Mount("bind", "/home/me/data", "/data", True, create_source=True),
        Mount("volume", "cache", "/cache"),
        Mount("tmpfs", "", "/t", options=("size=1048576", "mode=1777")),
        Mount("tmpfs", "", "/run", options=("size=2m",)),
        Mount("volume", "made", "/anonymous", unnamed=True),
    ]
    assert read_ports(host["PortBindings"]) == (
        PublishedPort("127.0.0.1", 8080, 80),
        PublishedPort("127.0.0.2", 0, 53, "udp"),
    )
    assert request["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "6006/tcp": {}}
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 128 << 20, 500_000_000)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["Devices"] == [
        {"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "r"}
    ]
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined"]
    assert (request["StopSignal"], request["StopTimeout"]) == ("SIGINT", 3.0)
    assert (request["Entrypoint"], request["Cmd"]) == (["/e"], ["a", "b"])
    assert host["ExtraHosts"] == ["db:fe80::1"]
    assert request["StdinOnce"]


def test_the_background_has_no_standard_input_of_a_client() -> None:
    request = request_of_line("-d -i image")
    assert (request["OpenStdin"], request["StdinOnce"], request["AttachStdout"]) == (True, False, False)


def test_a_published_port_listens_on_loopback_unless_an_address_is_given() -> None:
    ports = published("8888:8888", "0.0.0.0:80:80", "[::1]:81:81/udp", "6006")
    assert [port.host_ip for port in ports] == ["127.0.0.1", "0.0.0.0", "::1", "127.0.0.1"]
    assert ports[3].host_port == 0


def test_a_negative_time_waits_for_ever() -> None:
    assert request_of_line("--stop-timeout -1 image")["StopTimeout"] == -1
    assert request_of_line("--stop-timeout -30 image")["StopTimeout"] == -1
    assert request_of_line("--stop-timeout 0 image")["StopTimeout"] == 0


def test_port_ranges_go_in_step() -> None:
    assert [(port.host_port, port.container_port) for port in published("8000-8002:80-82")] == [
        (8000, 80),
        (8001, 81),
        (8002, 82),
    ]


def test_an_error_names_the_option() -> None:
    with pytest.raises(InvalidError, match="invalid --memory 1KiB: less than 6 MiB"):
        request_of_line("-m 1k image")
    with pytest.raises(InvalidError, match=r"invalid --ip 10\.0\.0: not an IPv4 address"):
        request_of_line("--network web --ip 10.0.0 image")


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--pids-limit x", "--pids-limit x: not a whole number", "give -1 to 4194304"),
        ("-c abc", "--cpu-shares abc: not a whole number", "give 2 to 262144"),
        ("--cpu-shares 1", "invalid --cpu-shares 1: out of range", "give 2 to 262144"),
        ("--cpu-quota 1", "invalid --cpu-quota 1: out of range", "give 1000 or more"),
        ("--health-cmd a --health-retries x", "--health-retries x: not a whole number", "give 0 or more"),
        ("--memory-swappiness x", "--memory-swappiness x: not a whole number", "give 0 to 100"),
        ("--oom-score-adj x", "--oom-score-adj x: not a whole number", "give -1000 to 1000"),
        (
            "--network name=a,gw-priority=x",
            "--network gw-priority x: not a whole number",
            "write a whole number",
        ),
        (
            "--restart on-failure:x",
            "--restart on-failure:x: 'x' is not a whole number",
            "write on-failure:3",
        ),
        (
            "--ulimit nofile",
            "--ulimit nofile: the limit's value is missing",
            "write NAME=SOFT[:HARD]: nofile=1024:2048",
        ),
        (
            "--ulimit nofile=x",
            "--ulimit nofile=x: 'x' is not a whole number",
            "write NAME=SOFT[:HARD]: nofile=1024:2048",
        ),
        ("--ulimit nofile=-2", "invalid --ulimit nofile=-2:-2: out of range", "give -1 or more"),
        ("--cpuset-cpus x", "invalid --cpuset-cpus x: not a list of numbers", "write 0-3 or 0,2"),
        ("--tmpfs /x:size=zz", "invalid --tmpfs /x:size=zz: 'zz' is not a size", "write size=64m"),
        ("--tmpfs /x:mode=9", "invalid --tmpfs /x:mode=9: '9' is not an octal number", "write mode=1777"),
        (
            "--ip 172.17.0.5",
            "invalid --ip 172.17.0.5: it works only on a network that was created",
            "dock network create --subnet SUBNET NAME, then --network NAME",
        ),
        (
            "--network host --network-alias x",
            "invalid --network-alias x: it works only on a network that was created",
            "dock network create NAME, then --network NAME",
        ),
        ("-e =x", "-e '': not a name of a variable", "write NAME=VALUE"),
        ("--expose x", "--expose x: 'x' is not a port", "a port is a number from 1 to 65535"),
        ("--expose 0/udp", "--expose 0/udp: 0 is out of range", "a port is a number from 1 to 65535"),
        (
            "-p 80:80:80:80",
            "-p 80:80:80:80: '80:80' is not an address",
            "write [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]: 8080:80",
        ),
        ("--add-host foo", "--add-host foo: the address is missing", "write --add-host NAME:ADDRESS"),
        ("--gpus=", "--gpus: the value is empty", "give one, or leave --gpus out"),
        (
            "--security-opt seccomp=/nosuch",
            "--security-opt seccomp=/nosuch: No such file or directory",
            "name a file that can be read",
        ),
        (
            "--memory-reservation 1k",
            "invalid --memory-reservation 1KiB: it is less than 6 MiB",
            "give 6m or more",
        ),
        (
            "-m 7m --memory-swap 6m",
            "invalid --memory-swap 6MiB: it counts memory and swap together",
            "give --memory too, and no more than --memory-swap",
        ),
        (
            "--log-opt max-size=x",
            "invalid --log-opt max-size=x: not a size",
            "write a size, 10m, or -1 for no limit",
        ),
        (
            "--log-opt max-file=x",
            "invalid --log-opt max-file=x: not a number of files",
            "write a number from 1 to 1000",
        ),
        (
            "-v /a:/b:rx",
            "invalid mount /a:/b:rx: unknown option rx",
            "there are ro, rw, nocopy, rprivate, private, rshared, shared, rslave, slave",
        ),
        ("--userns x", "invalid --userns x: no such mode", "there are host, keep-id[:uid=N,gid=N]"),
        (
            "--userns keep-id:uid=x",
            "invalid --userns keep-id:uid=x: uid 'x' is not an id from 0 to 4294967294",
            "write keep-id, or keep-id:uid=N,gid=N",
        ),
        ("--uts x", "invalid --uts x: no such mode", "the only mode is host"),
    ],
)
def test_an_error_says_what_was_typed_and_what_to_type(line: str, message: str, hint: str) -> None:
    with pytest.raises(PyDockError) as caught:
        request_of_line(f"{line} image")
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.exit_code == 125


def test_an_error_names_the_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\nA=1\n\nDocker's model (repository, image, container)\n")
    with pytest.raises(InvalidError) as caught:
        request_of("--env-file", str(file), "image")
    assert (
        caught.value.message
        == f'--env-file {file}, line 4: "Docker\'s model (repository, image, conta": not a name of a variable'
    )


def test_an_address_of_ipv6_needs_no_brackets() -> None:
    (port,) = published("::1:8080:80")
    assert (port.host_ip, port.host_port, port.container_port) == ("::1", 8080, 80)


def test_a_profile_stands_in_its_file_s_place(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    request = request_of("--security-opt", f"seccomp={file}", "image")
    assert request["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction": "SCMP_ACT_ALLOW"}']


@pytest.mark.parametrize(
    "text",
    ["99999:80", "80:0", "a:b", "80:80/icmp", "1.2.3.4.5:80:80", "80-81:80-82", "::80:80", "80:90-80", ""],
)
def test_bad_ports_are_refused(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        published(text)
    assert caught.value.exit_code == 125
    assert caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "-v a:b:c:d image",
        "-v ./x:relative image",
        "-v /x:/ image",
        "-v /x:/y:purple image",
        "-v in/valid:/y image",
        "--mount type=nfs,target=/x image",
        "--mount type=bind,target=/x image",
        "--mount source=/x image",
        "-v a:/x -v b:/x image",
        "-p 80:80 -p 80:81 image",
        "-m 1k image",
        "-m lots image",
        "--cpus 1000 image",
        "--cpus nan image",
        "--memory-swap 1g image",
        "-h bad_host! image",
        "-w relative image",
        "--add-host nowhere image",
        "--ulimit nothing=1 image",
        "--ulimit nofile=5:1 image",
        "--device dev image",
        "--stop-signal FOO image",
        "--stop-timeout soon image",
        "--sysctl x image",
        "--label =x image",
        "-e =x image",
        "--pids-limit many image",
        "--network web --network host image",
        "--network name=web,ip=10.0.0.2 --ip 10.0.0.3 image",
        "--network alias=a image",
        "--network name=web,colour=red image",
        "--network /x image",
        "--network-alias a image",
        "--network bridge --ip 10.0.0.2 image",
        "--network web --mac-address 01:00:00:00:00:01 image",
        "--network web --network-alias a/b image",
        "--network host --mac-address 02:00:00:00:00:01 image",
        "--dns example.com image",
        "--dns-search a/b image",
        "--dns-option a=b image",
        "--link :x image",
        "--security-opt frobnicate=1 image",
        "-v /x:/y:z image",
    ],
)
def test_bad_values_are_one_line_with_a_hint_and_exit_125(line: str) -> None:
    with pytest.raises((InvalidError, UnsupportedError)) as caught:
        request_of_line(line)
    assert caught.value.exit_code == 125
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_files_of_variables_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nHOST\nB=two words\n")
    request = request_of_line(f"--env-file {file} -e A=2 --label-file {file} image", {"HOST": "h"})
    assert request["Env"] == ["A=1", "HOST=h", "B=two words", "A=2"]
    assert request["Labels"] == {"A": "1", "HOST": "", "B": "two words"}
    with pytest.raises(NotFoundError) as caught:
        request_of_line(f"--env-file {tmp_path}/missing image")
    assert caught.value.exit_code == 125


@given(st.text(max_size=40))
def test_a_volume_parses_or_is_refused(text: str) -> None:
    try:
        (mount,) = read_mounts(request_of("-v", text, "image"), {})
    except PyDockError as error:
        assert error.hint
    else:
        assert mount.target.startswith("/")
        assert "/../" not in mount.target + "/"
        assert mount.kind in ("bind", "volume")


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1k", 1024), ("1.5G", 3 << 29), ("2MiB", 2 << 20), ("64MB", 64 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text, "-m") == size


@pytest.mark.parametrize(
    ("text", "name"), [("9", "KILL"), ("sigterm", "TERM"), ("RTMIN+3", "RTMIN+3"), ("37", "RTMIN+3")]
)
def test_signals(text: str, name: str) -> None:
    assert signal_name(signal_number(text, "-s")) == name


def test_booleans_are_those_of_go() -> None:
    assert all(parse_boolean(text, "readonly") for text in ("1", "t", "True"))
    assert not any(parse_boolean(text, "readonly") for text in ("0", "F", "false"))
    with pytest.raises(InvalidError, match="readonly tRUE: neither true nor false"):
        parse_boolean("tRUE", "readonly")


def test_moments() -> None:
    assert parse_moment_ns("10m", "--since", 3600 * 10**9) == 3000 * 10**9
    assert parse_moment_ns("1h30m", "--since", 5400 * 10**9) == 0
    assert parse_moment_ns("1970-01-01T00:00:01Z", "--since", 0) == 10**9
    assert parse_moment_ns("1.5", "--since", 0) == 1_500_000_000
    with pytest.raises(InvalidError):
        parse_moment_ns("yesterday", "--since", 0)


def test_a_files_line_ends_where_docker_ends_it(tmp_path: Path) -> None:
    """Not at the further characters that str.splitlines() takes for a line's end: they are part of a value."""
    file = tmp_path / "env"
    file.write_bytes("A=1\x852\u2028C=3\x0c4\r\n#note\n\n B=5\n".encode())
    request = request_of_line(f"--env-file {file} --label-file {file} image")
    assert request["Env"] == ["A=1\x852\u2028C=3\x0c4", "B=5"]
    assert request["Labels"] == {"A": "1\x852\u2028C=3\x0c4", "B": "5"}
