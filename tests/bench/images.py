"""Measures images: load, pull, push, save and commit beside podman, docker and skopeo; memory, layers and listings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Streams, Zygote
from tests.bench.image_peers import (
    ImagePeer,
    Registry,
    dock_peer,
    docker_images,
    podman_images,
    skopeo_images,
)
from tests.bench.isolation import unmount_below
from tests.bench.peer import LIMIT_SECONDS, Skipped, drain, end
from tests.bench.producers import Produced, produce
from tests.bench.samples import (
    busybox_archive,
    large_archive,
    many_files,
    many_layers,
    sample_tree,
)
from tests.support.create_request import create_request
from tests.support.peak_memory import measured, peak_bytes

Row = tuple[str, str, str, str, str]
_FIRST_PORT = 5100
_NAME = "large:latest"
_BOTH = ("podman", "docker")
_MANY_FILES = 400_000
"""Of one layer: hardly more would fit into an index."""


def run(base: Path, *, times: int, quick: bool, debian: Path | None = None) -> list[Row]:
    """Measure everything below ``base``; return the table's rows.

    Args:
        debian: the tar of a root file system, which becomes an image too.
    """
    scale = 10 if quick else 1
    sample = large_archive(base / "large.tar", files=15000 // scale, total_bytes=(500 << 20) // scale)
    tree = sample_tree(base / "tree", files=17000 // scale, total_bytes=(280 << 20) // scale)
    peers, skipped = _collect(
        [
            lambda: dock_peer(base / "erofs", "erofs"),
            lambda: dock_peer(base / "directory", "directory"),
            lambda: podman_images(base / "podman"),
            lambda: docker_images(base / "docker"),
            lambda: skopeo_images(sample),
        ]
    )
    bench = _Bench(base, peers, skipped, max(1, min(times, 3)), scale)
    try:
        rows = (
            bench.load(sample) + bench.save() + bench.push(sample) + bench.pull(sample) + bench.commit(tree)
        )
        rows += bench.copies(tree) + bench.volume()
        rows += bench.produced(debian)
    finally:
        for peer in peers:
            peer.close()
        for name in ("erofs", "directory"):
            _end_zygote(StateRoot(base / name / "data", base / name / "run"))
        unmount_below(base)
    rows += _memory(base, sample)
    return [*rows, *_layers(base, times), *_listing(base, 100 if quick else 1000)]


def _collect(makers: Sequence[Callable[[], ImagePeer]]) -> tuple[list[ImagePeer], dict[str, str]]:
    peers, skipped = [], {}
    for maker in makers:
        try:
            peers.append(maker())
        except Skipped as reason:
            skipped[reason.name] = str(reason)
    return peers, skipped


class _Bench:
    """The rows that all peers take part in.

    Args:
        scale: by what everything is smaller than what the wishes are for; only of 1 are they judged.
    """

    def __init__(
        self, base: Path, peers: Sequence[ImagePeer], skipped: dict[str, str], times: int, scale: int
    ) -> None:
        self._base = base
        self._scale = scale
        self._peers = peers
        self._skipped = skipped
        self._times = times
        self._port = _FIRST_PORT

    def _row(
        self, work: str, kind: str, once: Callable[[ImagePeer], float], wanted: Mapping[int, Sequence[str]]
    ) -> list[Row]:
        """Measure ``once`` (which returns seconds) in turns for all that can do it.

        Args:
            wanted: how many times faster than the best of these peers the EROFS driver is to be; and the directory driver
                no slower than podman, wherever that takes part.
        """
        taken: dict[str, list[float]] = {peer.name: [] for peer in self._peers if kind in peer.can}
        for _ in range(self._times):
            for peer in self._peers:
                if kind in peer.can:
                    os.sync()  # what the one before has left to be written is not to fall on this one
                    taken[peer.name].append(once(peer))
                    print(f"{work}: {peer.name} {_shown(taken[peer.name][-1])}", file=sys.stderr, flush=True)
        ours = min(taken[self._peers[0].name])
        rows = []
        for name, seconds in taken.items():
            rows.append(
                (work, name, _shown(_median(seconds)), _shown(min(seconds)), f"{min(seconds) / ours:.2f} x")
            )
        best = {name: min(seconds) for name, seconds in taken.items()}
        for factor, names in wanted.items() if self._scale == 1 else ():
            rows += _judge(work, "pydock (erofs)", factor, names, best)
        rows += _judge(work, "pydock (directory)", 1, ("podman",), best)
        return rows + [(work, name, "-", "-", reason) for name, reason in self._skipped.items()]

    def _registry(self) -> Registry:
        """An empty registry with an address that nobody knows anything about."""
        self._port += 1
        return Registry(self._base / f"registry-{self._port}", self._port)

    def load(self, sample: Path) -> list[Row]:
        def once(peer: ImagePeer) -> float:
            peer.forget(_NAME, f"localhost/{_NAME}")
            return _timed(lambda: peer.command("load", "-i", sample))

        return self._row(f"load {sample.stat().st_size >> 20} MB", "load", once, {6: _BOTH})

    def save(self) -> list[Row]:
        def once(peer: ImagePeer) -> float:
            target = self._base / "saved.tar"
            target.unlink(missing_ok=True)
            return _timed(lambda: peer.command("save", "-o", target, _NAME))

        rows = self._row("save", "save", once, {3: _BOTH})
        (self._base / "saved.tar").unlink()
        return rows

    def push(self, sample: Path) -> list[Row]:
        def once(peer: ImagePeer) -> float:
            registry = self._registry()
            name = f"{registry.host}/bench/large:latest"
            try:
                if peer.name == "skopeo":
                    return _timed(lambda: peer.command(name))
                peer.command("tag", _NAME, name)
                seconds = _timed(lambda: peer.command("push", *peer.insecure, name))
                peer.command("rmi", name)
                return seconds
            finally:
                registry.close()

        return self._row("push (gzip)", "push", once, {10: ("docker",), 2: ("skopeo",)})

    def pull(self, sample: Path) -> list[Row]:
        registry = self._registry()
        name = f"{registry.host}/bench/large:latest"
        try:
            skopeo_images(sample).command(name)

            def once(peer: ImagePeer) -> float:
                peer.forget(_NAME, f"localhost/{_NAME}", name)
                return _timed(lambda: peer.command("pull", "-q", *peer.insecure, name))

            return self._row("pull (gzip)", "pull", once, {5: _BOTH})
        finally:
            registry.close()

    def produced(self, debian: Path | None) -> list[Row]:
        """Load and pull images as other tools make them, beside podman."""
        base = self._base / "produced"
        base.mkdir()
        images, missing = produce(
            base,
            {peer.name: peer for peer in self._peers},
            debian,
            files=15_000 // self._scale,
            total_bytes=(150 << 20) // self._scale,
        )
        rows = [row for image in images for row in self._produced(image)]
        return rows + [(f"load and pull: {who}", who, "-", "-", reason) for who, reason in missing.items()]

    def _produced(self, image: Produced) -> list[Row]:
        def load(peer: ImagePeer) -> float:
            peer.forget(image.name)
            return _timed(lambda: peer.command("load", "-i", image.archive))

        rows = self._row(f"load: {image.who}", "load", load, {6: ("podman",)})
        registry = self._registry()
        name = f"{registry.host}/bench/produced:latest"
        try:
            skopeo_images(image.archive).command(name)

            def pull(peer: ImagePeer) -> float:
                peer.forget(image.name, name)
                return _timed(lambda: peer.command("pull", "-q", *peer.insecure, name))

            rows += self._row(f"pull: {image.who}", "pull", pull, {5: ("podman",)})
        finally:
            registry.close()
        for peer in self._peers:
            peer.forget(image.name, name)
        image.archive.unlink()
        return rows

    def commit(self, tree: Path) -> list[Row]:
        busybox = busybox_archive(self._base / "busybox.tar")

        def once(peer: ImagePeer) -> float:
            peer.forget("changed")
            peer.command("load", "-i", busybox)
            words = ["run", "-d", *peer.run, "--network", "none", "-v", f"{tree}:/source:ro", "busybox"]
            found = peer.command(*words, "sh", "-c", "cp -a /source /data && exec sleep 600")
            container = found.stdout.decode().strip()
            try:
                _wait_for_sleep(peer, container)
                os.sync()
                return _timed(lambda: peer.command("commit", container, "changed"))
            finally:
                peer.command("rm", "-f", container)

        size, files = 280 // self._scale, 17_000 // self._scale
        return self._row(f"commit {size} MB, {files:,} files", "commit", once, {3: ("docker",)})

    def copies(self, tree: Path) -> list[Row]:
        """Copy a tree of many files, and one file, into a container and out of it."""
        single = self._base / "single"
        single.mkdir()
        size_bytes = (280 << 20) // self._scale
        (single / "file").write_bytes(os.urandom(1 << 20) * (size_bytes >> 20))

        def once(peer: ImagePeer, source: Path, *, out: bool) -> float:
            words = ["run", "-d", *peer.run, "--network", "none", "busybox", "sleep", "600"]
            container = peer.command(*words).stdout.decode().strip()
            target = self._base / "copied"
            try:
                into = _timed(lambda: peer.command("cp", source, f"{container}:/copied"))
                if not out:
                    return into
                os.sync()
                return _timed(lambda: peer.command("cp", f"{container}:/copied", target))
            finally:
                peer.command("rm", "-f", container)
                shutil.rmtree(target, ignore_errors=True)

        rows: list[Row] = []
        size, files = 280 // self._scale, 17_000 // self._scale
        for source, what in ((tree, f"{size} MB, {files:,} files"), (single, f"{size} MB, one file")):
            for out, way in ((False, "into"), (True, "out of")):
                rows += self._row(
                    f"cp of {what}, {way} a container",
                    "commit",
                    lambda peer, source=source, out=out: once(peer, source, out=out),  # type: ignore[misc]  # the defaults bind them
                    {3: ("docker",)},
                )
        shutil.rmtree(single)
        return rows

    def volume(self) -> list[Row]:
        """Fill a new volume with what an image has at its target: the committed tree."""

        def once(peer: ImagePeer) -> float:
            words = ["run", "--rm", *peer.run, "--network", "none", "-v", "filled:/data", "changed", "true"]
            try:
                return _timed(lambda: peer.command(*words))
            finally:
                peer.command("volume", "rm", "filled")

        size, files = 280 // self._scale, 17_000 // self._scale
        return self._row(f"volume copy-up of {size} MB, {files:,} files", "commit", once, {1: ("podman",)})


def _judge(work: str, who: str, factor: int, names: Sequence[str], best: Mapping[str, float]) -> list[Row]:
    """Say whether one is so many times faster than the best of others, as far as they took part."""
    others = [best[name] for name in names if name in best]
    if not others or who not in best:
        return []
    found = min(others) / best[who]
    share = f"below 1/{factor} of" if factor > 1 else "no slower than"
    wanted = f"{who}: {share} {' and '.join(names)}"
    return [(work, wanted, "", "", f"{'met' if found >= factor else 'NOT met'} (1/{found:.1f})")]


def _wait_for_sleep(peer: ImagePeer, container: str) -> None:
    """Wait, a bounded time, until the container's shell has become sleep."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if b"sleep" in peer.command("exec", container, "cat", "/proc/1/comm").stdout:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{peer.name}: the change was not made in two minutes")


def _memory(base: Path, sample: Path) -> list[Row]:
    """The largest resident set of a load, a push and a pull, each a process of its own."""
    rows = []
    registry = Registry(base / "registry-memory", _FIRST_PORT)
    many = many_files(base / "many.tar", "many:latest", _MANY_FILES)
    runs = [(sample, _NAME, "", driver) for driver in ("erofs", "directory")]
    runs.append((many, "many:latest", f", {_MANY_FILES:,} files", "erofs"))
    try:
        for archive, local, what, driver in runs:
            name = f"{registry.host}/bench/{local}"
            for words in (
                ("load", "-q", "-i", archive),
                ("tag", local, name),
                ("push", "-q", name),
                ("rmi", local, name),
                ("pull", "-q", name),
            ):
                root = base / f"memory-{driver}"
                peak = _peak_bytes(words, PYDOCK_ROOT=str(root), PYDOCK_SNAPSHOTTER=driver)
                if words[0] in ("load", "push", "pull"):
                    rows.append(
                        (
                            f"peak memory of {words[0]}{what}",
                            f"pydock ({driver})",
                            f"{peak >> 20} MiB",
                            "",
                            "",
                        )
                    )
    finally:
        registry.close()
        many.unlink()
    return rows


def _peak_bytes(words: Sequence[object], **environment: str) -> int:
    """Run the program, and return the peak of its resident set."""
    done = subprocess.run(
        measured(Path(sys.executable).with_name("dock"), *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT_SECONDS,
        env={**os.environ, **environment},
    )
    return peak_bytes(done.stdout)


def _layers(base: Path, times: int) -> list[Row]:
    """A container of thirty layers beside one of a single layer."""
    engine = Engine(StateRoot(base / "layers" / "data", base / "layers" / "run"))
    for count in (1, 30):
        with many_layers(base / f"layers-{count}.tar", f"layers-{count}", count).open("rb") as stream:
            engine.images.load(stream)

    def start(count: int) -> None:
        config = create_request(f"layers-{count}", "true", AutoRemove=True)
        container_id, _ = engine.containers.create(config)
        with engine.containers.start(container_id, attach=Streams(stdin=False)) as session:
            drain(session)
            session.wait()
        engine.containers.remove(container_id)

    taken: dict[int, list[float]] = {1: [], 30: []}
    for round_number in range(times + 2):
        for count in taken:
            seconds = _timed(lambda count=count: start(count))
            if round_number >= 2:
                taken[count].append(seconds)
    _end_zygote(engine.root)
    base_median = _median(taken[1])
    return [
        (
            "run --rm, by number of layers",
            f"pydock, {count}",
            _shown(_median(values)),
            _shown(min(values)),
            f"{_median(values) / base_median:.2f} x",
        )
        for count, values in taken.items()
    ]


def _listing(base: Path, count: int) -> list[Row]:
    """``images`` with many images, in this process."""
    engine = Engine(StateRoot(base / "many" / "data", base / "many" / "run"))
    with busybox_archive(base / "many.tar").open("rb") as stream:
        engine.images.load(stream)
    container_id, _ = engine.containers.create(create_request("busybox"))
    for number in range(count - 1):
        engine.filesystems.commit(container_id, f"image-{number}", message=str(number))
    engine.images.list()
    seconds = [_timed(engine.images.list) for _ in range(5)]
    engine.containers.remove(container_id)
    _end_zygote(engine.root)
    return [(f"images, {count} of them", "pydock", _shown(_median(seconds)), _shown(min(seconds)), "")]


def _end_zygote(root: StateRoot) -> None:
    if root.zygote_socket().exists():
        end(int(Zygote(root).ping()["pid"]))


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
