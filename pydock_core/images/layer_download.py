"""Downloads an image's layers in parallel, and inflates and applies them while they arrive.

A layer's application begins after its download has begun, and reads the arriving data.  So applying a layer waits only on
a download in progress, in this process or another, and the two cannot deadlock.  A blob enters the store when its layer
has been applied; the next pull continues an interrupted download (:mod:`pydock_core.store.partial`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from pydock_core.errors import NoSpaceError
from pydock_core.images.image_store import ImageStore
from pydock_core.images.parallel import Cancellation, CancelledTransfer, run_all
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import Descriptor
from pydock_core.oci.reference import Reference
from pydock_core.progress import Event, Progress
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.partial import PartialBlob, PartialBlobs

if TYPE_CHECKING:
    from pydock_core.images.registry.client import RegistryClient

_DOWNLOADS = 3
"""The number of simultaneous downloads, as in Docker."""
_THREADS = 64
_REPORT_BYTES = 1 << 20


class _Layer:
    """One layer in transfer.

    Attributes:
        paired: an earlier comparison found that the blob is this layer.
        holding: holds the partial file's lock; closing it moves the blob into the store.
        failure: of this layer's own transfer.
    """

    def __init__(self, descriptor: Descriptor, diff_id: str, *, paired: bool) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self.paired = paired
        self.name = short_id(descriptor.digest)
        self.holding = contextlib.ExitStack()
        self.failure: BaseException | None = None

    def abandon(self, error: BaseException) -> None:
        """Release the partial file with the layer's own failure; another layer's failure does not concern its content.

        Args:
            error: of the pull; a full disk concerns every layer.
        """
        reason = error if isinstance(error, NoSpaceError) else self.failure or CancelledTransfer()
        holding = self.holding.pop_all()
        with contextlib.suppress(type(reason)):
            holding.__exit__(type(reason), reason, reason.__traceback__)


class LayerDownload:
    """The transfer of one image's layers.

    Args:
        store: receives the layers; inside :meth:`ImageStore.adding`.
        client: of the registry.
        reference: of the image.
        report: receives events, from several threads.
    """

    def __init__(
        self, store: ImageStore, client: RegistryClient, reference: Reference, report: Progress
    ) -> None:
        self._store = store
        self._client = client
        self._reference = reference
        self._blobs = store.blobs
        self._snapshotter = store.snapshotter
        self._partials = PartialBlobs(store.blobs)
        self._report = report
        self._cancellation = Cancellation()
        self._slots = threading.Semaphore(_DOWNLOADS)

    def skip(self, pairs: Mapping[str, tuple[Descriptor, str]]) -> None:
        """Report that all layers exist."""
        for descriptor, diff_id in pairs.values():
            self._say(_Layer(descriptor, diff_id, paired=True), "Already exists")

    def transfer(self, pairs: Mapping[str, tuple[Descriptor, str]]) -> None:
        """Transfer the layers into the store; the first failure ends the transfer."""
        layers = []
        for descriptor, diff_id in pairs.values():
            layer = _Layer(descriptor, diff_id, paired=self._store.is_pair(diff_id, descriptor.digest))
            if layer.paired and self._blobs.has(descriptor.digest) and self._snapshotter.has(diff_id):
                self._say(layer, "Already exists")
            else:
                has_blob = self._blobs.has(descriptor.digest)
                self._say(layer, "Pulling fs layer", total=None if has_blob else descriptor.size_bytes)
                layers.append(layer)
        if not layers:
            return
        for layer in layers[_DOWNLOADS:]:
            self._say(layer, "Waiting")
        with (
            ThreadPoolExecutor(os.cpu_count() or 1, "pull-apply") as applications,
            ThreadPoolExecutor(min(len(layers), _THREADS), "pull-layer") as threads,
        ):
            try:
                run_all(threads, lambda layer: self._transfer(layer, applications), layers, self._give_up)
            except BaseException as error:
                for layer in layers:
                    layer.abandon(error)
                raise

    def _give_up(self, error: BaseException) -> None:
        self._cancellation.set()
        self._client.close()  # ends waiting reads

    def _say(
        self, layer: _Layer, status: str, current: int | None = None, *, total: int | None = None
    ) -> None:
        """Report a layer's status with its bytes; without ``current``, only with the total."""
        event: Event = {"status": status, "id": layer.name}
        if current is not None:
            event["current"], event["total"] = current, layer.descriptor.size_bytes
        elif total is not None:
            event["total"] = total
        self._report(event)

    def _transfer(self, layer: _Layer, applications: ThreadPoolExecutor) -> None:
        try:
            self._transfer_one(layer, applications)
        except BaseException as error:
            layer.failure = error
            raise

    def _transfer_one(self, layer: _Layer, applications: ThreadPoolExecutor) -> None:
        """Download one layer, while another thread applies it, and put its blob into the store."""
        descriptor = layer.descriptor
        with self._slots:
            self._cancellation.check()
            partial = self._open(layer)
            if partial is None:
                path = self._blobs.blob_path(descriptor.digest)
                blob = LayerBlob(path, descriptor.media_type, verified=True, paired=layer.paired)
                application = applications.submit(self._apply, layer, blob)
            else:
                blob = replace(partial.layer(), paired=layer.paired)
                application = applications.submit(self._apply, layer, blob)
                self._download(layer, partial, application)
        application.result()
        self._cancellation.check()
        layer.holding.close()
        self._say(layer, "Pull complete")

    def _open(self, layer: _Layer) -> PartialBlob | None:
        """Begin a download; return None if the store has the blob, perhaps after waiting for another process."""
        if self._blobs.has(layer.descriptor.digest):
            return None
        partial = layer.holding.enter_context(
            self._partials.open(
                layer.descriptor,
                f"layer {layer.name} of {self._reference.familiar}",
                lambda size: self._say(layer, "Waiting", size),
                lambda: self._cancellation.is_set,
            )
        )
        self._cancellation.check()
        return partial

    def _download(self, layer: _Layer, partial: PartialBlob, application: Future[None]) -> None:
        def check() -> None:
            self._cancellation.check()
            if application.done():
                application.result()  # raises its failure; without one, the layer existed

        sink = _Reporting(partial, check, lambda position: self._say(layer, "Downloading", position))
        try:
            self._client.fetch_blob(self._reference.path, layer.descriptor, sink)
            self._say(layer, "Verifying Checksum")
            partial.finish()
        except BaseException as error:
            partial.arrival.fail(error)
            raise
        self._say(layer, "Download complete")

    def _apply(self, layer: _Layer, blob: LayerBlob) -> None:
        self._snapshotter.apply(layer.diff_id, blob, lambda event: self._extracting(layer, event))

    def _extracting(self, layer: _Layer, event: Event) -> None:
        self._cancellation.check()
        self._report({**event, "id": layer.name})


class _Reporting:
    """A ``BlobSink`` that fills a partial blob, and reports every megabyte."""

    def __init__(
        self, partial: PartialBlob, check: Callable[[], None], report: Callable[[int], None]
    ) -> None:
        self._partial = partial
        self._check = check
        self._report = report
        self._reported = 0

    @property
    def position(self) -> int:
        return self._partial.position

    def write(self, data: bytes) -> None:
        self._check()
        self._partial.write(data)
        if self.position - self._reported >= _REPORT_BYTES:
            self._reported = self.position
            self._report(self.position)

    def restart(self) -> None:
        self._partial.restart()
        self._reported = 0
