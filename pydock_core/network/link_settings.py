"""Sets a network device's kernel settings so that a container's packets cannot reconfigure it.

Applies to the caller's network namespace.  A device is created down: set these before it goes up, because an
IPv6 device that goes up solicits routers and acts on the first advertisement (CVE-2020-13401).
Source of the names: Documentation/networking/ip-sysctl.rst in the kernel's tree.
"""

from __future__ import annotations

from pathlib import Path

from pydock_core.errors import FailedError

_ROOT = Path("/proc/sys/net")
_IPV4 = {"accept_redirects": "0", "accept_source_route": "0"}
# disable_ipv6 comes last: the others stay in force if it is reset.
_IPV6 = {"accept_ra": "0", "autoconf": "0", "accept_redirects": "0", "disable_ipv6": "1"}
_IPV6_IN_USE = {**_IPV6, "addr_gen_mode": "0", "use_tempaddr": "0", "disable_ipv6": "0"}


def harden(device: str, *, ipv6: bool = False) -> None:
    """Disable every way for a neighbour to change a device's configuration, and IPv6 unless it is in use.

    Raises:
        FailedError: a setting cannot be written.
    """
    _set(f"ipv4/conf/{device}", _IPV4)
    _set(f"ipv6/conf/{device}", _IPV6_IN_USE if ipv6 else _IPV6)


def harden_namespace() -> None:
    """Ignore ICMP redirects in a container's namespace.

    On a device that does not forward, IPv4 redirects are accepted if either "all" or the device's own setting
    says so.
    """
    _set("ipv4/conf/all", {"accept_redirects": "0"})


def _set(folder: str, settings: dict[str, str]) -> None:
    if not (_ROOT / folder).is_dir():
        return  # a kernel without this protocol, or ipv6.disable=1
    for name, value in settings.items():
        path = _ROOT / folder / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            setting = str(path.relative_to("/proc/sys")).replace("/", ".")
            raise FailedError(
                f"cannot set {setting} to {value}: {error.strerror}",
                hint="use --network none or host, or make /proc/sys writable",
                exit_code=125,
            ) from error
