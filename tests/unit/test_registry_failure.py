"""The failures of a registry: the tables are complete, and the retry policy."""

from __future__ import annotations

import http.client
import inspect
import json
import re
import socket
import ssl
from types import ModuleType

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import (
    CorruptError,
    DeniedError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.images.registry.failure import (
    CODES,
    FAILURES,
    BrokenConnectionError,
    RefusedConnectionError,
    TlsError,
    map_failure,
    mapped_failures,
    meaning_of,
    rate_limit_error,
    refusal,
)
from pydock_core.images.registry.retry import ATTEMPTS, REFUSED_ATTEMPTS, Attempts, pause_after
from pydock_core.images.registry.settings import RegistrySettings
from pydock_core.printable import printable_line

SPECIFICATION_CODES = {
    "BLOB_UNKNOWN": NotFoundError,
    "BLOB_UPLOAD_INVALID": InvalidError,
    "BLOB_UPLOAD_UNKNOWN": NotFoundError,
    "DIGEST_INVALID": InvalidError,
    "MANIFEST_BLOB_UNKNOWN": InvalidError,
    "MANIFEST_INVALID": InvalidError,
    "MANIFEST_UNKNOWN": NotFoundError,
    "NAME_INVALID": InvalidError,
    "NAME_UNKNOWN": NotFoundError,
    "SIZE_INVALID": InvalidError,
    "UNAUTHORIZED": DeniedError,
    "DENIED": DeniedError,
    "UNSUPPORTED": UnsupportedError,
    "TOOMANYREQUESTS": UnavailableError,
}
"""The error codes of the distribution specification, all of them."""

FINAL = {
    "HeaderParsingError": CorruptError,
    "InvalidHeader": CorruptError,
    "InvalidURL": CorruptError,
    "LocationParseError": CorruptError,
    "LocationValueError": CorruptError,
    "ProxySchemeUnknown": CorruptError,
    "ProxySchemeUnsupported": CorruptError,
    "SSLCertVerificationError": TlsError,
    "SSLEOFError": TlsError,
    "SSLError": TlsError,
    "SSLSyscallError": TlsError,
    "SSLWantReadError": TlsError,
    "SSLWantWriteError": TlsError,
    "SSLZeroReturnError": TlsError,
    "URLSchemeUnknown": CorruptError,
}
REFUSED = {"NameResolutionError", "NewConnectionError", "ProxyError"}


def _exceptions(module: ModuleType) -> set[type[Exception]]:
    return {
        kind
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if not name.startswith("_")
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind is not Exception
    }


def test_the_table_of_foreign_exceptions_is_complete() -> None:
    found = set().union(*map(_exceptions, (urllib3.exceptions, http.client, ssl, socket)))
    assert len(found) > 40
    for kind in found:  # meaning_of raises for a class without a listed base
        expected = FINAL.get(
            kind.__name__, RefusedConnectionError if kind.__name__ in REFUSED else BrokenConnectionError
        )
        assert meaning_of(kind).error in (expected, *expected.__subclasses__()[: kind.__name__ in REFUSED]), (
            kind
        )
    assert set(FAILURES) <= found | {OSError, TimeoutError, ValueError}


def _instance(kind: type[BaseException]) -> BaseException:
    if issubclass(kind, urllib3.exceptions.ProxyError):
        return kind("said", OSError())
    return kind("said") if issubclass(kind, OSError) else kind.__new__(kind)


def test_each_foreign_exception_becomes_one_line_about_the_host() -> None:
    for kind in FAILURES:
        error = map_failure("ghcr.io", _instance(kind), RegistrySettings())
        assert re.match("ghcr.io(, through the proxy)?: .", error.message)
        assert "{" not in error.message
        assert type(error) is meaning_of(kind).error


def test_errors_of_our_own_pass_unchanged() -> None:
    ours = CorruptError("mine")
    with pytest.raises(CorruptError) as caught, mapped_failures("ghcr.io"):
        raise ours
    assert caught.value is ours


@pytest.mark.parametrize(("code", "kind"), SPECIFICATION_CODES.items())
def test_each_code_of_the_specification_has_a_meaning(code: str, kind: type[PyDockError]) -> None:
    assert set(CODES) == set(SPECIFICATION_CODES)
    assert type(_refusal(400, {"errors": [{"code": code}]})) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, DeniedError),
        (403, DeniedError),
        (407, DeniedError),
        (404, NotFoundError),
        (405, UnsupportedError),
        (415, UnsupportedError),
        (400, InvalidError),
        (413, InvalidError),
        (416, InvalidError),
        (422, InvalidError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
        (418, FailedError),
        (302, FailedError),
    ],
)
def test_each_status_has_a_meaning(status: int, kind: type[PyDockError]) -> None:
    assert type(_refusal(status)) is kind


def _refusal(status: int, body: object = None, **headers: str) -> PyDockError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal("ghcr.io", "a/b:c", status, named, data, login_host="ghcr.io")


def test_a_rate_limit_names_the_allowance_and_the_pause() -> None:
    message = rate_limit_error("docker.io", {"RateLimit-Limit": "100;w=21600", "Retry-After": "8040"}).message
    assert message == "docker.io: rate limit reached (100 pulls per 6 h); try again in 2 h 14 min"


def test_refusals() -> None:
    denied = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
    error = _refusal(403, denied)
    assert isinstance(error, DeniedError)
    assert error.message == (
        "ghcr.io: a/b:c: access denied: DENIED: requested access to the resource is denied"
    )
    assert "dock login ghcr.io" in error.hint
    blob = refusal("ghcr.io", "a/b@sha256:" + "d" * 64, 401, {}, b"", login_host="ghcr.io", logged_in=True)
    assert blob.message == "ghcr.io: a/b: access denied (401)"
    assert "stored credentials" in blob.hint
    assert isinstance(_refusal(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]}), NotFoundError)
    assert isinstance(_refusal(400, {"errors": [{"code": "NAME_INVALID"}]}), InvalidError)
    assert isinstance(_refusal(502, b"<html>bad gateway"), UnavailableError)
    assert "is this a registry?" in _refusal(404, b"<html>", Content_Type="text/html").message
    assert isinstance(_refusal(200, {"errors": [{"code": "TOOMANYREQUESTS"}]}), UnavailableError)
    for strange in (None, [], 7, {"errors": 7}, {"errors": [7, None, {"code": []}]}, b"\xff\x00", {}):
        assert _refusal(418, strange).message.startswith("ghcr.io: a/b:c")


@given(st.text(max_size=500))
def test_what_others_say_is_one_printable_line(text: str) -> None:
    line = printable_line(text)
    assert len(line) <= 200
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in line)
    assert "\u202e" not in line


def test_attempts_are_counted_and_pauses_grow() -> None:
    attempts = Attempts()
    pauses = []
    while attempts.are_left():
        pauses.append(attempts.next_pause())
    assert len(pauses) == ATTEMPTS - 1
    assert pauses[0] == 0  # a broken connection may be an old one
    assert all(
        0.25 * 2**number <= pause <= 0.25 * 2**number + 0.25 for number, pause in enumerate(pauses[1:], 1)
    )
    attempts.reset()
    assert attempts.are_left()
    assert not Attempts(1).are_left()


def test_a_refused_connection_is_tried_less_often() -> None:
    attempts = Attempts(refused_limit=REFUSED_ATTEMPTS)
    refused = RefusedConnectionError("nobody listens")
    pauses = []
    while attempts.are_left(refused):
        pauses.append(attempts.next_pause())
    assert len(pauses) == REFUSED_ATTEMPTS - 1
    assert attempts.are_left(BrokenConnectionError("it broke"))


def test_what_is_worth_another_attempt() -> None:
    assert pause_after(404, {}) is None
    assert pause_after(500, {"Retry-After": "100000"}) == 0.0
    assert pause_after(503, {"Retry-After": "7"}) == 7.0
    assert pause_after(429, {"Retry-After": "31"}) is None
    assert pause_after(429, {}) == 0.0
    assert pause_after(429, {"RateLimit-Remaining": "0;w=21600"}) is None
