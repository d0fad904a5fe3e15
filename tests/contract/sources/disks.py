"""Disks of virtual machines for tests, made by the real tools and without root's loop devices: a kernel of Debian's, a
busybox, syslinux on a FAT. What is made once is kept."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import snapshot
from lab.host import Host
from lab.tree import base_tree, digest, entry

# The machine's first and only program but busybox: a web server, a disk of data, a power button.
INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
mark=$(sed 's/.*mark=\\([^ ]*\\).*/\\1/' /proc/cmdline)
given=/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/shipit.env/raw
set -a; . $given; set +a
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
for disk in /sys/block/vd*; do [ "$(cat $disk/serial)" != data ] || data=/dev/${disk##*/}; done
if [ -n "$data" ]; then
  mount -t ext4 $data /data || { mke2fs $data >/dev/null; mount -t ext4 $data /data; }
  [ ! -e /data/open ] || echo "was not closed" >> /data/boots
  echo "$mark $SHIPIT_RELEASE" >> /data/boots
  touch /data/open; sync
fi
acpid -d -l /dev/null >/dev/null 2>&1 &
echo $mark > /www/index.html
{ echo "release=$SHIPIT_RELEASE $SHIPIT_PROCESS"; echo "word=$WORD"; echo "pem=$PEM"; echo "cpus=$(nproc)"
  grep MemTotal /proc/meminfo; [ ! -e /data/boots ] || cat /data/boots; } > /www/seen
printf '\\033[1mserves %s\\033[0m at %s\\n' $mark "$PORT"
httpd -f -p $PORT -h /www
while :; do sleep 1; done
"""
OFF = """\
#!/bin/sh
echo "told to end" > /dev/console
killall httpd; rm -f /data/open; umount /data; sync
echo "ended well" > /dev/console
poweroff -f
"""
MODULES = (
    "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci", "net/net_failover", "net/virtio_net", "block/virtio_blk", "firmware/qemu_fw_cfg", "acpi/button",
    "input/evdev",
)  # fmt: skip
MARKS = ("one", "two")
TOOLS = "busybox-static cpio fdisk mtools syslinux syslinux-common systemd-boot-efi qemu-utils"
ARGUMENTS = "console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests nowatchdog"
# What an administrator installs (docs/vms.md).
PACKAGES = "qemu-system-x86 qemu-utils ovmf"
MAKE = f"""\
set -eu
export DEBIAN_FRONTEND=noninteractive MTOOLS_SKIP_CHECK=1
apt-get -q update
apt-get -q -y --no-install-recommends install {TOOLS}
cd /var/lib/made
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -1)
apt-get -q download $kernel
dpkg -x $kernel*.deb kernel
version=${{kernel#linux-image-}}
mkdir -p root/bin root/modules root/proc root/sys root/dev root/data root/www root/etc/acpi/PWRF
cp /bin/busybox root/bin/
modules=/var/lib/made/kernel/lib/modules/$version/kernel
cp $modules/net/core/failover.ko root/modules/
echo failover.ko > root/modules/order
for module in {" ".join(MODULES)}; do
  cp $modules/drivers/$module.ko root/modules/
  echo ${{module##*/}}.ko >> root/modules/order
done
install -m 755 init root/init
install -m 755 off root/etc/acpi/PWRF/00000080
(cd root && find . | cpio -o -H newc --quiet > ../initrd)
mkdir disks
for mark in {" ".join(MARKS)}; do
  disk=disks/$mark.raw
  truncate -s 24M $disk
  echo '2048,,6,*' | sfdisk -q $disk
  dd if=/usr/lib/syslinux/mbr/mbr.bin of=$disk conv=notrunc status=none
  mformat -i $disk@@1M -T $((23 * 2048)) -h 2 -s 32 ::
  mcopy -i $disk@@1M kernel/boot/vmlinuz-$version ::vmlinuz
  mcopy -i $disk@@1M initrd ::initrd
  printf 'DEFAULT linux\\nPROMPT 0\\nLABEL linux\\nLINUX vmlinuz\\nINITRD initrd\\nAPPEND {ARGUMENTS} mark=%s\\n' $mark > config
  mcopy -i $disk@@1M config ::syslinux.cfg
  syslinux -t 1048576 -i $disk
  qemu-img convert -O qcow2 $disk disks/$mark.qcow2
done
# One that only UEFI starts: nothing before its partition is code.
disk=disks/uefi.raw
truncate -s 24M $disk
printf 'label: gpt\\n2048,45056,U\\n' | sfdisk -q $disk
mformat -i $disk@@1M -T 45056 -h 2 -s 32 ::
mmd -i $disk@@1M ::EFI ::EFI/BOOT ::loader ::loader/entries
mcopy -i $disk@@1M /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::EFI/BOOT/BOOTX64.EFI
mcopy -i $disk@@1M kernel/boot/vmlinuz-$version ::vmlinuz
mcopy -i $disk@@1M initrd ::initrd
printf 'linux /vmlinuz\\ninitrd /initrd\\noptions {ARGUMENTS} mark=uefi\\n' > config
mcopy -i $disk@@1M config ::loader/entries/one.conf
qemu-img convert -O qcow2 $disk disks/uefi.qcow2
"""


def disks() -> Path:
    """A directory with MARK.raw and MARK.qcow2, and the same for `uefi`: machines that answer with their mark."""

    def make(new: Path) -> None:
        with Host.boot(base_tree("bookworm"), "disks") as host:
            host.write("/var/lib/made/init", INIT)
            host.write("/var/lib/made/off", OFF)
            host.sh(MAKE, check=True, timeout=600)
            host.keep_archives()
            for path in (host.upper / "var/lib/made/disks").iterdir():
                path.rename(new / path.name)

    return entry("disks", digest(INIT, OFF, MAKE), make)


def broken() -> bytes:
    """A disk whose machine ends at once: its boot code makes the processor give up (a triple fault)."""
    code = b"\xfa\x0f\x01\x1e\x20\x7c\xcc".ljust(446, b"\0")
    return (
        code + bytes([0x80, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]).ljust(64, b"\0") + b"\x55\xaa" + bytes(2**20)
    )


@contextmanager
def server_with_qemu(name: str, suite: str = "bookworm") -> Iterator[Host]:
    """A server with what its administrator is told to install."""
    if platform.machine() != "x86_64":
        pytest.skip(f"virtual machines run on x86-64, and this is {platform.machine()}")
    with Host.boot(snapshot.installed_tree(suite), name) as host:
        install = f"DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install {PACKAGES}"
        host.sh("apt-get -q update", check=True, timeout=300)
        if not host.sh(f"apt-get -s install {PACKAGES}", check=False).ok:
            pytest.skip(f"the archive that this machine reaches has no {PACKAGES}")
        host.sh(install, check=True, timeout=600)
        host.keep_archives()
        yield host
