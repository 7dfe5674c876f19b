# SPDX-License-Identifier: Apache-2.0
"""The step as a whole: wait, verify, mount, and make the GPU extension part of the system."""

from __future__ import annotations

import threading
from errno import ENODEV, ENOENT
from pathlib import Path

import pytest

from fakes.device_mapper import EROFS, ExtensionGuest, extension_guest, params
from fakes.modules import add_module, loads
from fakes.trouble import told
from nvrc.engine.facts import Facts
from nvrc.extensions.disks import find_disks, reconcile
from nvrc.params.parse import parse
from nvrc.steps import extensions
from nvrc.vocabulary.errors import NvrcError

HASHES = {"gpu": "ab" * 32, "coco": "cd" * 32}
ROOT = "/run/kata-extensions/gpu"
MADE = "/run/nvrc-ldconfig/ld.so.cache"
LIBRARIES = f"{ROOT}/usr/lib/x86_64-linux-gnu/libcuda.so.1"


@pytest.fixture
def guest(tmp_path: Path) -> ExtensionGuest:
    guest = extension_guest(str(tmp_path))
    guest.images = dict.fromkeys(HASHES.values(), EROFS)
    guest.put("/sbin/ldconfig", "", 0o755)
    guest.put("/etc/ld.so.cache")
    guest.put("/lib/firmware/nvidia/.keep")
    guest.put(LIBRARIES)
    guest.put(f"{ROOT}/lib/firmware/nvidia/550/gsp.bin")
    return guest


def facts(*names: str, more: str = "") -> Facts:
    words = [f"kata.extension.{name}.verity_params={params(HASHES[name]).text()}" for name in names]
    return Facts(parameters=parse(" ".join((*words, more)).encode()))


def ldconfig(guest: ExtensionGuest, status: int = 0, writes: bool = True) -> None:
    """Have the next program end soon."""
    def end() -> None:
        if writes:
            guest.put(MADE, "cache")
        guest.ended.append((guest.next_pid, status))
        guest.reap()

    guest.later(0.01, end)


def mounts(guest: ExtensionGuest) -> list[str]:
    return [effect for effect in guest.effects if effect.startswith("mount ")]


class SilentGuest(ExtensionGuest):
    """Its verified device never comes to an answer."""

    is_over = threading.Event()

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        if path.startswith("/dev/mapper/"):
            assert self.is_over.wait(60)
        return super().read(path, limit)


def test_a_disk_that_does_not_answer_while_it_is_verified_is_named(guest: ExtensionGuest) -> None:
    silent, given = SilentGuest(guest.root), facts("gpu")
    silent.mapper, silent.images = guest.mapper, {}
    silent.devices["/dev/mapper/control"] = guest.mapper
    guest.add_disk("vda", "extension-gpu", 1, 2)
    pair = reconcile(find_disks(guest), given.settings.extensions)[0]
    with pytest.raises(NvrcError) as caught:
        extensions.mount_patiently(silent, pair, given.settings, answer_s=0.2)
    silent.is_over.set()
    assert (caught.value.code, caught.value.what) == ("E_EXTENSION_DEVICE", 'extension "gpu": its disk does not answer within 0.2 s')


def test_without_extensions_nothing_is_touched(guest: ExtensionGuest) -> None:
    found = extensions.run(guest, facts())
    assert (found.extensions, found.gpu_root, guest.effects) == ((), "", [])
    assert extensions.tell(found) == ""


def test_each_extension_is_mounted_read_only_where_programs_may_run(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-coco", 1, 2)
    found = extensions.run(guest, facts("coco"))
    assert found.extensions == ("coco",)
    assert found.gpu_root == ""
    assert mounts(guest) == ["mount /dev/mapper/extension-coco /run/kata-extensions/coco erofs 0x7"]
    assert guest.programs == []


def test_the_gpu_extension_brings_firmware_and_libraries(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    guest.add_disk("vdb", "extension-coco", 1, 2)
    ldconfig(guest)
    found = extensions.run(guest, facts("gpu", "coco"))
    assert (found.extensions, found.gpu_root) == (("gpu", "coco"), ROOT)
    assert extensions.tell(found) == "gpu coco"
    assert mounts(guest)[2:] == [f"mount {ROOT}/lib/firmware/nvidia /lib/firmware/nvidia  0x1000",
                                 "mount tmpfs /run/nvrc-ldconfig tmpfs 0xe mode=700,size=16m",
                                 "mount /run/ld.so.cache /etc/ld.so.cache  0x1000"]
    assert guest.text("/run/ld.so.cache") == "cache"
    assert guest.text("/run/nvrc-ldconfig/ld.so.conf") == f"include /etc/ld.so.conf.d/*.conf\n{ROOT}/usr/lib/x86_64-linux-gnu\n"
    program = guest.programs[0]
    assert (program.path, program.args, program.log_as) == (
        "/sbin/ldconfig", ("-X", "-f", "/run/nvrc-ldconfig/ld.so.conf", "-C", MADE), "ldconfig")


def test_an_image_without_ldconfig_uses_that_of_the_extension_and_firmware_may_be_absent(guest: ExtensionGuest,
                                                                                         tmp_path: Path) -> None:
    guest.put(f"{ROOT}/sbin/ldconfig", "", 0o755)
    guest.put("/sbin/ldconfig", "", 0o644)
    (tmp_path / ROOT[1:] / "lib/firmware/nvidia/550/gsp.bin").unlink()
    (tmp_path / ROOT[1:] / "lib/firmware/nvidia/550").rmdir()
    (tmp_path / ROOT[1:] / "lib/firmware/nvidia").rmdir()
    guest.add_disk("vda", "extension-gpu", 1, 2)
    ldconfig(guest)
    extensions.run(guest, facts("gpu"))
    assert guest.programs[0].path == f"{ROOT}/sbin/ldconfig"
    assert len(mounts(guest)) == 3


def test_late_disks_and_partitions_are_waited_for_on_events(guest: ExtensionGuest) -> None:
    def disk_comes() -> None:
        guest.clock += 4
        guest.add_disk("vda", "extension-coco")

    def partitions_come() -> None:
        guest.clock += 4
        guest.add_partition("vda", 1)
        guest.add_partition("vda", 2)

    guest.happenings = [lambda: None, disk_comes, partitions_come]
    extensions.run(guest, facts("coco"))
    assert guest.clock == 108
    assert mounts(guest)


def test_a_disk_that_never_comes_ends_the_wait_and_the_boot(guest: ExtensionGuest) -> None:
    with pytest.raises(NvrcError, match='extension "coco": no disk has the serial extension-coco'):
        extensions.run(guest, facts("coco", more="nvrc.timeout.extensions=3"))
    assert guest.clock == 103
    assert mounts(guest) == []


def test_a_disk_that_nobody_named_ends_the_boot_at_once(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    with pytest.raises(NvrcError, match='extension "gpu": device vda has no verity parameters'):
        extensions.run(guest, facts())
    assert guest.clock == 100


def test_drivers_of_disks_are_loaded_first_where_they_are_modules(guest: ExtensionGuest) -> None:
    for name in ("virtio_blk", "dm-mod", "erofs"):
        add_module(guest, f"{name}.ko")
    where = add_module(guest, "dm-verity.ko", "dm-mod.ko")
    guest.put("/etc/modprobe.d/a.conf", "nonsense\n")
    guest.add_disk("vda", "extension-coco", 1, 2)
    found = extensions.run(guest, facts("coco"))
    assert loads(guest) == ["virtio_blk.ko", "dm-mod.ko", "dm-verity.ko", "erofs.ko"]
    assert told(found.warnings) == ("/etc/modprobe.d/a.conf:1: 'nonsense' is not understood and changes nothing",)
    guest.fail[f"load {where}"] = OSError(ENOENT, "x")
    guest.put("/sys/module/dm_verity/initstate", "going\n")
    with pytest.raises(NvrcError, match="module dm_verity needs a symbol"):
        extensions.run(guest, facts("coco"))


def test_a_disk_that_nobody_named_shows_even_where_its_driver_is_a_module(guest: ExtensionGuest) -> None:
    """A boot without extensions and without a driver would take an unspoken-of disk for none."""
    where = add_module(guest, "virtio_blk.ko")
    add_module(guest, "erofs.ko")
    guest.put("/sys/bus/virtio/devices/virtio0/device", "0x0002\n")
    load = guest.load_module

    def load_and_probe(image: str | bytes, options: str, *, compressed: bool = False) -> None:
        load(image, options, compressed=compressed)
        assert image == where
        guest.add_disk("vda", "extension-gpu", 1, 2)

    guest.load_module = load_and_probe  # type: ignore[method-assign]
    with pytest.raises(NvrcError, match='extension "gpu": device vda has no verity parameters'):
        extensions.run(guest, facts())
    assert loads(guest) == ["virtio_blk.ko"]


@pytest.mark.parametrize("device", ["0x0001", "0x0008", ""], ids=["network", "SCSI", "none"])
def test_other_devices_on_the_bus_load_nothing(guest: ExtensionGuest, device: str) -> None:
    add_module(guest, "virtio_blk.ko")
    if device:
        guest.put("/sys/bus/virtio/devices/virtio0/device", f"{device}\n")
    extensions.run(guest, facts())
    assert loads(guest) == []


def test_the_policy_of_the_command_line_reaches_the_table(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-coco", 1, 2)
    extensions.run(guest, facts("coco", more="nvrc.verity.corruption=restart"))
    assert guest.mapper.tables[-1].endswith(" 1 restart_on_corruption")


def test_verified_data_that_are_no_erofs_are_not_mounted(guest: ExtensionGuest) -> None:
    guest.images[HASHES["coco"]] = bytes(4096)
    guest.add_disk("vda", "extension-coco", 1, 2)
    with pytest.raises(NvrcError, match="its verified data are not an EROFS file system") as caught:
        extensions.run(guest, facts("coco"))
    assert caught.value.code == "E_EXTENSION_MOUNT"
    assert mounts(guest) == []


def test_a_mount_that_is_refused_is_told(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-coco", 1, 2)
    guest.fail["mount /run/kata-extensions/coco"] = OSError(ENODEV, "No such device")
    with pytest.raises(NvrcError, match='"coco": cannot mount it on /run/kata-extensions/coco: No such device') as caught:
        extensions.run(guest, facts("coco"))
    assert caught.value.code == "E_EXTENSION_MOUNT"


def break_firmware_target(guest: ExtensionGuest) -> None:
    guest.put(f"{ROOT}/lib/firmware/nvidia/x")
    guest.fail["mount /lib/firmware/nvidia"] = OSError(ENODEV, "No such device")


def drop(path: str) -> object:
    def act(guest: ExtensionGuest) -> None:
        Path(guest.real_path(path)).rename(guest.real_path(path) + ".gone")

    return act


@pytest.mark.parametrize(("fault", "what"), [
    pytest.param(break_firmware_target, "cannot mount /run/kata-extensions/gpu/lib/firmware/nvidia on "
                 "/lib/firmware/nvidia: No such device", id="bind-refused"),
    pytest.param(drop("/lib/firmware/nvidia"), "/lib/firmware/nvidia is not in the image, so", id="no-firmware-target"),
    pytest.param(drop("/etc/ld.so.cache"), "/etc/ld.so.cache is not in the image, so /run/ld.so.cache", id="no-cache-target"),
    pytest.param(drop("/sbin/ldconfig"), "/sbin/ldconfig is neither in the image nor in the GPU extension", id="no-ldconfig"),
    pytest.param(drop(f"{ROOT}/usr/lib"), "usr/lib: No such file or directory", id="no-usr-lib"),
    pytest.param(drop(f"{ROOT}/usr/lib/x86_64-linux-gnu"), "has no folder <machine>-linux-gnu", id="no-triplet"),
])
def test_what_the_gpu_extension_needs_and_lacks_is_told(guest: ExtensionGuest, fault: object, what: str) -> None:
    fault(guest)  # type: ignore[operator]
    guest.add_disk("vda", "extension-gpu", 1, 2)
    ldconfig(guest)
    with pytest.raises(NvrcError) as caught:
        extensions.run(guest, facts("gpu"))
    assert caught.value.code == "E_EXTENSION_LIBS"
    assert what in caught.value.what


@pytest.mark.parametrize(("status", "writes", "what"), [
    (256, True, f"'/sbin/ldconfig -X -f /run/nvrc-ldconfig/ld.so.conf -C {MADE}' exited with status 1"),
    (11, True, "was killed by SIGSEGV"),
    (0, False, f"/sbin/ldconfig made no {MADE}: No such file or directory"),
])
def test_an_ldconfig_that_fails_is_told_with_its_command(guest: ExtensionGuest, status: int, writes: bool, what: str) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    ldconfig(guest, status, writes)
    with pytest.raises(NvrcError) as caught:
        extensions.run(guest, facts("gpu"))
    assert what in caught.value.what


def test_an_ldconfig_that_hangs_or_cannot_start_is_told(guest: ExtensionGuest) -> None:
    guest.add_disk("vda", "extension-gpu", 1, 2)
    with pytest.raises(NvrcError, match="did not end within 7 s"):
        extensions.run(guest, facts("gpu", more="nvrc.timeout.command=7"))
    guest.mapper.devices.clear()
    guest.nodes.clear()
    guest.fail["start /sbin/ldconfig"] = OSError(ENOENT, "No such file or directory")
    with pytest.raises(NvrcError, match="cannot renew the loader cache with /sbin/ldconfig: No such file"):
        extensions.run(guest, facts("gpu"))


def test_the_steps_deadline_leaves_room_for_every_wait() -> None:
    assert extensions.deadline_s(facts()) == 240 + 5
    assert extensions.deadline_s(facts("gpu", "coco")) == 240 + 5 * 7
