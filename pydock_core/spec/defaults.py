"""Docker's defaults for a container's OCI configuration, as data (moby: oci/defaults.go, oci/caps/defaults.go)."""

from __future__ import annotations

from typing import Any

OCI_VERSION = "1.0.2"
"""The version that crun and runc of every supported distribution read; nothing newer is used."""

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

NETWORK_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}
"""Settings of a container's own network namespace: its users may bind every port (moby: daemon/oci_linux.go, WithSysctls)."""

PROC_MOUNT: dict[str, Any] = {
    "destination": "/proc",
    "type": "proc",
    "source": "proc",
    "options": ["nosuid", "noexec", "nodev"],
}
DEV_MOUNT: dict[str, Any] = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
}
DEVPTS_MOUNT: dict[str, Any] = {
    "destination": "/dev/pts",
    "type": "devpts",
    "source": "devpts",
    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
}
SYS_MOUNT: dict[str, Any] = {
    "destination": "/sys",
    "type": "sysfs",
    "source": "sysfs",
    "options": ["nosuid", "noexec", "nodev", "ro"],
}
SYS_BIND: dict[str, Any] = {
    "destination": "/sys",
    "type": "bind",
    "source": "/sys",
    "options": ["rbind", "nosuid", "noexec", "nodev", "rro"],
}
CGROUP_MOUNT: dict[str, Any] = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "ro"],
}
MQUEUE_MOUNT: dict[str, Any] = {
    "destination": "/dev/mqueue",
    "type": "mqueue",
    "source": "mqueue",
    "options": ["nosuid", "noexec", "nodev"],
}
SHM_OPTIONS = ("nosuid", "noexec", "nodev", "mode=1777")
TMPFS_OPTIONS = ("nosuid", "nodev", "noexec")
"""Of ``--tmpfs``, before the user's own, which win."""

DEVICE_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    *({"allow": True, "type": "c", "major": 1, "minor": minor, "access": "rwm"} for minor in (5, 3, 9, 8)),
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
)

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The environment of an image that sets no PATH."""
INIT_ANNOTATION = "org.pydock.init"
"""Makes the embedded executor run its own init (runtime/container_config.py)."""
INIT_PLACE = "/dev/init"
"""The init in the container of an OCI runtime program (runtime/reaper/image.py)."""
