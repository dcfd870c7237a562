"""Words are split as Docker's program splits them: a table, properties, and the program itself where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.command import Option
from pydock_core.commands.create_words import build_request
from pydock_core.commands.parser import Parsed, parse
from pydock_core.commands.pflag import Split, SyntaxProblem, split
from pydock_core.errors import InvalidError
from pydock_core.spec.definition import CreateRequest
from pydock_core.spec.validation import check_request

OPTIONS = {
    flag: option
    for option in (
        Option(("-i", "--interactive"), ""),
        Option(("-t", "--tty"), ""),
        Option(("-e", "--env"), "", "VALUE", many=True),
        Option(("-n", "--name"), "", "NAME"),
        Option(("--sig-proxy",), "", default="true"),
    )
    for flag in option.flags
}


def split_line(line: str, *, interspersed: bool) -> Split:
    return split(line.split(), OPTIONS, lambda flag: flag == "-h", interspersed=interspersed)


@pytest.mark.parametrize(
    ("line", "options", "arguments"),
    [
        ("-ti=false x", "-t=true -i=false", "x"),
        ("-it=true x", "-i=true -t=true", "x"),
        ("-tie A=1 x", "-t=true -i=true -e=A=1", "x"),
        ("-tieA=1 x", "-t=true -i=true -e=A=1", "x"),
        ("-e=A=1 x", "-e=A=1", "x"),
        ("-e= x", "-e==", "x"),
        ("-e -- x", "-e=--", "x"),
        ("-e --tty x", "-e=--tty", "x"),
        ("--env= x", "--env=", "x"),
        ("--env=a=b x", "--env=a=b", "x"),
        ("--sig-proxy x", "--sig-proxy=true", "x"),
        ("--sig-proxy=false x", "--sig-proxy=false", "x"),
        ("-i false x", "-i=true", "false x"),
        ("-- x -i", "", "x -i"),
        ("-i -- -t x", "-i=true", "-t x"),
        ("- x", "", "- x"),
        ("-i -h --nonesuch", "-i=true -h=", ""),
    ],
)
@pytest.mark.parametrize("interspersed", [True, False])
def test_words(line: str, options: str, arguments: str, interspersed: bool) -> None:
    found = split_line(line, interspersed=interspersed)
    assert " ".join(f"{flag}={value}" for flag, value in found.options) == options
    assert " ".join(found.arguments) == arguments


def test_where_options_end() -> None:
    line = "x -i -- -t"
    assert split_line(line, interspersed=True) == Split([("-i", "true")], ["x", "-t"])
    assert split_line(line, interspersed=False) == Split([], ["x", "-i", "--", "-t"])
    assert split_line("-- x -- -t", interspersed=False) == Split([], ["x", "--", "-t"])


@pytest.mark.parametrize(
    "line", ["-z", "-tz", "-i=", "--nonesuch", "--=x", "---x", "-n", "--name", "-in", "--tt", "-=x"]
)
def test_what_pflag_refuses(line: str) -> None:
    with pytest.raises(SyntaxProblem):
        split_line(line, interspersed=True)


WORDS = st.lists(st.text(alphabet="-=ietnx ", max_size=6) | st.sampled_from([*OPTIONS, "--"]), max_size=8)


@given(words=WORDS, command=st.lists(st.text(alphabet="-=itx", max_size=4), max_size=5))
def test_a_containers_words_are_its_own(words: list[str], command: list[str]) -> None:
    """Whatever stands before an argument, all behind it is kept as it is, a "--" included."""
    try:
        split(words, OPTIONS, lambda flag: False, interspersed=False)
    except SyntaxProblem:
        return
    found = split([*words, "image", *command], OPTIONS, lambda flag: False, interspersed=False)
    assert found.arguments[len(found.arguments) - len(command) :] == command
    for flag, value in found.options:
        assert flag in OPTIONS
        assert OPTIONS[flag].takes_value or value


@given(words=WORDS, interspersed=st.booleans())
def test_no_word_is_lost_or_made_up(words: list[str], interspersed: bool) -> None:
    try:
        found = split(words, OPTIONS, lambda flag: False, interspersed=interspersed)
    except SyntaxProblem:
        return
    given_text = "".join(words)
    for argument in found.arguments:
        assert argument in words
    for flag, value in found.options:
        assert flag.lstrip("-") in given_text
        assert value in given_text or value == "true"


LINES = (
    "busybox -- a",
    "-- busybox -- a",
    "-ti=false busybox",
    "-it=true busybox -it",
    "-i=0 -t=T busybox sh -c --",
    "-e=A=1 -eB=2 -e C=3 --env=D=4 busybox",
    "-e --=v busybox --",
    "--cpu-period=20000 --cpu-quota 5000 --cpuset-mems=0 --memory-reservation 9m --blkio-weight=10 busybox",
    "--read-only busybox false",
    "--read-only=false busybox",
    "--entrypoint= busybox x",
    "--name=one -lk=v --label k2 -l=k3=v=w busybox",
    "-tiu 1:2 -w=/x busybox",
    "--init=false --rm=1 busybox",
    "-i= busybox",
    "-ti=maybe busybox",
    "-tizx busybox",
    "--rm= busybox",
    "--=x busybox",
    "---x busybox",
    "-u",
    "--name",
    "--sig-proxy busybox",
    "-v /srv:/data:ro -v cache:/cache:nocopy -v /anonymous --tmpfs /run:size=2m,exec busybox",
    "--mount type=bind,source=/srv,target=/x,readonly,bind-propagation=rslave busybox",
    "--mount type=volume,source=named,target=/x,volume-nocopy --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700 busybox",
    "--volumes-from one --volumes-from=two:ro --volume-driver local -v cache:/cache busybox",
    "--mount type=volume,src=v,dst=/x,volume-subpath=a/b,volume-label=k=v=w,volume-label=l,volume-driver=local busybox",
    "--mount type=volume,src=v,dst=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs,ro=false busybox",
    '--mount type=volume,src=v,dst=/x,volume-opt=type=none,"volume-opt=o=bind,ro",volume-opt=device=/srv busybox',
    '--mount type=volume,src=v,dst=/x,"volume-opt=o=bind busybox',
    "--mount type=bind,src=/srv,dst=/x,bind-nonrecursive busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=enabled,consistency=cached busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=disabled busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=writable,readonly busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=readonly,ro,bind-propagation=rprivate busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=writable busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=readonly,ro busybox",
    "--mount type=bind,src=/srv,dst=/x,bind-recursive=sometimes busybox",
    "--mount type=image,src=busybox,dst=/x,image-subpath=etc busybox",
    "--mount type=bind,src=/srv,dst=/x,volume-nocopy busybox",
    "--mount type=volume,src=v,dst=/x,tmpfs-size=1m busybox",
    "--mount type=volume,src=v,dst=/x,volume-subpath busybox",
    "-p 127.0.0.1:8080:80 -p 127.0.0.2::53/udp -p 127.0.0.1:82-83:82-83 --expose 6006 busybox",
    "--group-add 5 --hostname box --add-host db:10.0.0.1 --add-host=six=[fe80::1] --add-host h:host-gateway busybox",
    "-m 64m --memory-swap 128m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 10 --oom-score-adj 7 busybox",
    "--memory-swap -1 -m 64m --shm-size 1m --ulimit nofile=10:20 --ulimit core=5 --sysctl net.ipv4.ip_forward=1 busybox",
    "--cap-add NET_ADMIN --cap-drop ALL --privileged --security-opt no-new-privileges --security-opt seccomp=unconfined busybox",
    "--device /dev/null:/dev/nil:r --device /dev/zero --stop-signal SIGINT --stop-timeout 3 --runtime crun busybox",
    "--gpus all busybox",
    "--gpus 2,capabilities=utility --gpus device=0 --gpus=driver=nvidia,count=-1 busybox",
    '--gpus "device=0,1","capabilities=compute,utility" busybox',
    "--gpus device=GPU-8d2b2f1e,driver=nvidia --device vendor.com/class=name --device /dev/null busybox",
    "--device nvidia.com/gpu=0:1 --device intel.com/gpu=all busybox",
    '--gpus a"b busybox',
    '--gpus "all"x busybox',
    "--gpus= busybox",
    "--gpus all,all busybox",
    "--gpus 1,count=1 busybox",
    "--gpus some busybox",
    "--gpus count=x busybox",
    "--gpus key=value busybox",
    "--annotation a=b --annotation c=d=e --network none --log-driver json-file --log-opt max-size=1m -i busybox",
    "--network host --read-only --entrypoint /e busybox a b",
    "--restart on-failure:3 busybox",
    "--restart=unless-stopped busybox",
    "--health-cmd true --health-interval 1m30s --health-timeout=1s --health-retries 2 --health-start-period 3s busybox",
    "--no-healthcheck busybox",
    "--init busybox",
    "--ipc host --pid host --userns host --cgroupns private --cgroup-parent /jobs --domainname d busybox",
    "--uts host --ipc none --ipc private busybox",
    "--blkio-weight-device /dev/sda:100 --device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:5 busybox",
    "--device-read-iops /dev/sda:7 --device-write-iops=/dev/sda:8 --memory-swappiness 10 --oom-kill-disable busybox",
    "--no-healthcheck --health-cmd true busybox",
    "--health-interval 1 --health-cmd true busybox",
    "-p 8000-8005:80 -p 127.0.0.1:9000-9002:90/udp busybox",
    "-p 8000-8005:80-81 busybox",
    "--dns 10.0.0.1 --dns ::1 --dns-search example.com --dns-option ndots:2 --dns-opt rotate -P busybox",
    "--network web --network-alias a --net-alias b --ip 10.0.0.2 --ip6 fd00::2 --link db:store busybox",
    "--network name=web,alias=a,ip=10.0.0.2,mac-address=02:00:00:00:00:01,gw-priority=3 busybox",
    "--network web --network name=db,alias=x busybox",
    "--network web --network web busybox",
    "--network web --network bridge busybox",
    "--network name=web,alias=a --network-alias b busybox",
    "--network alias=a busybox",
    "--network name=web,colour=red busybox",
    "--link db --mac-address 02:00:00:00:00:01 busybox",
    "--network bridge --link db:store busybox",
)


def ours(line: str) -> CreateRequest | None:
    """The request of ``create``; None for words that do not parse."""
    try:
        parsed = parse(["create", *line.split()])
        assert isinstance(parsed, Parsed)
        return build_request(parsed.words, {}, "/")
    except InvalidError:
        return None


@contextmanager
def engine(path: Path, asked: list[dict[str, Any]]) -> Iterator[None]:
    """An Engine API that notes what is to be created."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "client"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "/containers/create" in self.path:
                asked.append(json.loads(body))
            reply = b'{"Id": "0123456789ab", "Warnings": []}'
            self.send_response(201 if self.command == "POST" else 200)
            self.send_header("Api-Version", "1.51")
            self.send_header("Ostype", "linux")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply)

        do_GET = do_POST = do_HEAD = answer

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(not shutil.which("docker"), reason="needs the docker client (Debian: docker-cli)")
def test_dockers_own_program_asks_for_the_same(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    # Not below tmp_path: the path of a socket has at most 107 bytes (unix(7)).
    path = Path(f"/tmp/pydock-engine-{os.getpid()}.sock")
    try:
        with engine(path, asked):
            for line in LINES:
                asked.clear()
                result = subprocess.run(
                    ["docker", "create", *line.split()],
                    env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{path}"},
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                built = ours(line)
                assert (built is None) == (not asked), (line, result.stderr)
                if built is not None:
                    sent = check_request(asked[0])
                    for request in (sent, built):  # the client keeps these in maps, so their order is random
                        request["Env"].sort()
                        (request["HostConfig"]["Binds"] or []).sort()
                        request["HostConfig"]["Ulimits"].sort(key=lambda limit: limit["Name"])
                    assert sent == built, line
    finally:
        path.unlink(missing_ok=True)
