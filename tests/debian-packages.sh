#!/bin/sh
# Install what the tests need from Debian, where this may be done; else say what is missing.
set -eu
packages="python3-venv python3-dev gcc make git uidmap nftables iproute2 libseccomp2 podman crun runc skopeo umoci mmdebstrap
 chromium qemu-system-x86 linux-image-amd64 busybox-static cpio kmod e2fsprogs acl attr tmux bubblewrap xz-utils zstd tar
 passt slirp4netns docker-registry docker.io erofs-utils openssl apache2-utils binutils-aarch64-linux-gnu qemu-user-static"
command -v dpkg-query >/dev/null || { echo "not a Debian system: tests whose tools are missing are skipped"; exit 0; }
if ! command -v node >/dev/null; then packages="$packages nodejs npm"; fi
missing=""
for package in $packages; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "missing Debian packages (their tests are skipped):$missing"
	exit 0
fi
damaged=$(dpkg --audit 2>/dev/null | sed -n 's/^ \([a-z0-9][a-z0-9.+:-]*\).*/\1/p' | tr '\n' ' ')
if [ -n "$damaged" ] || [ -n "$(ls -A /var/lib/dpkg/updates 2>/dev/null)" ]; then
	echo "error: dpkg cannot install:$missing, as an earlier installation was interrupted: ${damaged:-its journal is not empty}" >&2
	echo "hint: dpkg --configure -a" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
