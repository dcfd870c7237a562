"""What the words of run and create become."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.create_words import build_config, parse_ports, parse_volume
from pydock_core.commands.parser import Parsed, parse
from pydock_core.commands.values import parse_boolean, parse_bytes, parse_signal
from pydock_core.engine.config import ContainerConfig, Device, Mount
from pydock_core.engine.moment import parse_moment_ns
from pydock_core.errors import InvalidError, NotFoundError, PyDockError, UnsupportedError
from pydock_core.supervision.plan import PublishedPort


def config_of(
    line: str, environment: dict[str, str] | None = None, directory: str = "/home/me"
) -> ContainerConfig:
    parsed = parse(["run", *line.split()])
    assert isinstance(parsed, Parsed)
    return build_config(parsed.words, environment or {}, directory)


def test_everything_at_once_survives_json() -> None:
    config = config_of(
        "--rm -it -e A=1 -e HOST -v ./data:/data:ro -v cache:/cache -v /anonymous --mount type=tmpfs,target=/t,tmpfs-size=1m "
        "--tmpfs /run:size=2m -p 8080:80 -p 127.0.0.2::53/udp --expose 6006 --name x -w /w -u 1:2 --group-add 5 "
        "--entrypoint /e --network none -h box --add-host db:10.0.0.1 -l a=b -m 64m --memory-swap 128m --cpus 0.5 "
        "--pids-limit 10 --ulimit nofile=10:20 --sysctl net.ipv4.ip_forward=1 --read-only --shm-size 1m "
        "--cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --security-opt seccomp=unconfined "
        "--device /dev/null:/dev/nil:r --stop-signal SIGINT --stop-timeout 3 --runtime crun image a b",
        {"HOST": "h"},
    )
    assert config.env == ("A=1", "HOST=h")
    assert config.mounts[0] == Mount("bind", "/home/me/data", "/data", True, create_source=True)
    assert config.mounts[1] == Mount("volume", "cache", "/cache")
    assert config.mounts[2] == Mount("volume", "", "/anonymous")
    assert "size=1048576" in config.mounts[3].options
    assert config.ports == (PublishedPort("127.0.0.1", 8080, 80), PublishedPort("127.0.0.2", 0, 53, "udp"))
    assert config.exposed_ports == ("80/tcp", "53/udp", "6006/tcp")
    assert (config.memory_bytes, config.memory_swap_bytes, config.cpus) == (64 << 20, 128 << 20, 0.5)
    assert config.ulimits == (("nofile", 10, 20),)
    assert config.devices == (Device("/dev/null", "/dev/nil", "r"),)
    assert (config.stop_signal, config.stop_timeout_seconds) == ("INT", 3.0)
    assert config.command == ("a", "b")
    assert config.hosts == ("10.0.0.1\tdb",)
    assert (
        ContainerConfig.from_json(__import__("json").loads(__import__("json").dumps(config.to_json())))
        == config
    )


def test_a_published_port_listens_on_loopback_unless_an_address_is_given() -> None:
    published, exposed = parse_ports(["8888:8888", "0.0.0.0:80:80", "[::1]:81:81/udp", "6006"])
    assert [port.host_ip for port in published] == ["127.0.0.1", "0.0.0.0", "::1", "127.0.0.1"]
    assert published[3].host_port == 0
    assert exposed == ["8888/tcp", "80/tcp", "81/udp", "6006/tcp"]


def test_a_negative_time_waits_for_ever() -> None:
    assert config_of("--stop-timeout -1 image").stop_timeout_seconds == -1
    assert config_of("--stop-timeout -30 image").stop_timeout_seconds == -1
    assert config_of("--stop-timeout 0 image").stop_timeout_seconds == 0


def test_port_ranges_go_in_step() -> None:
    published, _ = parse_ports(["8000-8002:80-82"])
    assert [(port.host_port, port.container_port) for port in published] == [
        (8000, 80),
        (8001, 81),
        (8002, 82),
    ]


@pytest.mark.parametrize(
    "text",
    ["99999:80", "80:0", "a:b", "80:80/icmp", "1.2.3.4.5:80:80", "80-81:80", "::80:80", "80:90-80", ""],
)
def test_bad_ports_are_refused(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_ports([text])
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
        "--network web image",
        "--security-opt frobnicate=1 image",
        "-v /x:/y:z image",
    ],
)
def test_bad_values_are_one_line_with_a_hint_and_exit_125(line: str) -> None:
    with pytest.raises((InvalidError, UnsupportedError)) as caught:
        config_of(line)
    assert caught.value.exit_code == 125
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_files_of_variables_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nHOST\nB=two words\n")
    config = config_of(f"--env-file {file} -e A=2 --label-file {file} image", {"HOST": "h"})
    assert config.env == ("A=1", "HOST=h", "B=two words", "A=2")
    assert config.labels == {"A": "1", "HOST": "", "B": "two words"}
    with pytest.raises(NotFoundError) as caught:
        config_of(f"--env-file {tmp_path}/missing image")
    assert caught.value.exit_code == 125


@given(st.text(max_size=40))
def test_a_volume_parses_or_is_refused(text: str) -> None:
    try:
        mount = parse_volume(text, "/home/me")
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
    assert parse_signal(text, "-s") == name


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
    config = config_of(f"--env-file {file} --label-file {file} image")
    assert config.env == ("A=1\x852\u2028C=3\x0c4", "B=5")
    assert config.labels == {"A": "1\x852\u2028C=3\x0c4", "B": "5"}
