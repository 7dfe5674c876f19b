# SPDX-License-Identifier: Apache-2.0
"""How bytes get to each parser: a function each, which imports what it tries, so that a fuzzer can instrument that."""

from __future__ import annotations

import io
import os
import selectors
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from nvrc.params.policy import Policy


@cache
def strictest() -> Policy:
    from nvrc.params.policy import load_policy

    return load_policy(b'strict = true\nallow = ["nvrc.log"]\nwords = ["@kata"]\npin.nvrc.cc = "on"\n')


def kernel_line(data: bytes) -> None:
    """With a policy, by which more is asked of each word; without one where its length says so, as that is soon told."""
    from nvrc.params.parse import parse

    problems = parse(data, strictest()).problems
    if len(data) % 8 == 0:
        problems = (*problems, *parse(data).problems)
    for problem in problems:
        assert str(problem).isprintable()


def policy(data: bytes) -> None:
    """PID 1 has a reader of its own for what is plain: it reads as the other does, or leaves it to that."""
    from nvrc.params.explanation import explain
    from nvrc.params.policy import load_policy
    from nvrc.vocabulary.plaintoml import read_plain
    from nvrc.vocabulary.tomltext import parse_toml

    text = data.decode("utf-8", "replace")
    found = read_plain(text)
    assert found is None or repr(found) == repr(parse_toml(text))
    explain(load_policy(data))


def policy_draft(data: bytes) -> None:
    from nvrc.params.suggestion import suggest

    suggest(data.split(b"\n")[:2])


def initdata(data: bytes) -> None:
    """A disk if it begins as one, else the document that is packed on one."""
    from nvrc.params.initdata import is_initdata, read_initdata, unpack_disk
    from nvrc.params.parse import parse

    found = read_initdata(unpack_disk(data) if is_initdata(data) else data)
    assert all(remark.isprintable() for remark in found.remarks)
    for problem in parse(b"", strictest(), found.tokens).problems:
        assert str(problem).isprintable()


def nccl_topology(data: bytes) -> None:
    """What is taken of it is XML, has what NCCL has room for, and is taken again as it is."""
    from xml.etree import ElementTree

    from nvrc.hardware.nccl_given import LONGEST, MOST_ELEMENTS, read_given

    gpus, nics, present = ["0000:40:00.0", "0000:41:00.0"], ["0000:70:00.0"], {"0000:01:00.0": 0x010000}
    text, mistakes = read_given(data, gpus, nics, present)
    assert all(mistake.isprintable() for mistake in mistakes)
    if mistakes:
        return
    assert read_given(text, gpus, nics, present) == (text, ())
    elements = list(ElementTree.fromstring(text).iter())
    assert len(elements) <= MOST_ELEMENTS
    assert all(len(value) <= LONGEST for one in elements for value in one.attrib.values())


def tee_report(data: bytes) -> None:
    from nvrc.confidential.cbor import find_personalization
    from nvrc.confidential.tee import snp_host_data, td_config
    from nvrc.vocabulary.errors import NvrcError

    for read in (lambda: find_personalization(data), lambda: snp_host_data(data, bytes(64)), lambda: td_config(data, bytes(64))):
        try:
            read()
        except NvrcError as err:
            assert err.what.isprintable()


def evidence(data: bytes) -> None:
    from nvrc.confidential.evidence import check_evidence, leaf_of
    from nvrc.vocabulary.errors import NvrcError

    try:
        check_evidence(data, bytes(32), {leaf_of(b"-----END CERTIFICATE-----"): "GPU-00000000-0000-4000-8000-000000000000"})
    except NvrcError as err:
        assert len(err.what) < 1500 and err.what.isprintable()
        raise


def token(data: bytes) -> None:
    from nvrc.confidential.evidence import check_token
    from nvrc.vocabulary.errors import NvrcError

    try:
        assert check_token(data, 1, 1.8e9).isprintable()
    except NvrcError as err:
        assert len(err.what) < 1500 and err.what.isprintable()
        raise


def attestation_answer(data: bytes) -> None:
    from nvrc.confidential import ttrpc

    ttrpc.take(ttrpc._unwrap(data), 1)


def cdi_document(data: bytes) -> None:
    from guest_cdi.lean.jsonvalue import read_json
    from guest_cdi.lean.yamltext import write_yaml
    from nvrc.machine.files import LinuxFiles
    from nvrc.nvml.document import check_document

    try:
        document = read_json(data)
    except ValueError:
        return
    try:
        write_yaml(check_document(LinuxFiles(), document)).encode()
    except UnicodeEncodeError:
        return  # the step says so


def worker_answer(data: bytes) -> None:
    from nvrc.nvml import worker
    from nvrc.nvml.answers import NvmlGpu, read_records

    read_records(NvmlGpu, worker._unwrap(worker._read_reply("gpus", data)))


def switch_answer(data: bytes) -> None:
    from nvrc.nvml import worker
    from nvrc.nvml.answers import SwitchTold, read_records
    from nvrc.nvml.switches import check_switches
    from nvrc.vocabulary.errors import NvrcError

    told = read_records(SwitchTold, worker._unwrap(worker._read_reply("switches", data)))
    try:
        check_switches(told, ("0000:50:00.0", "0000:50:01.0"))
    except NvrcError as err:
        assert len(err.what) < 1500 and err.what.isprintable()
        raise


def boot_report(data: bytes) -> None:
    from nvrc.report.diagnosis import diagnose_report
    from nvrc.report.report import from_json
    from nvrc.report.view import show_report

    report = from_json(data)
    show_report(report)
    diagnose_report(report)


def live_status(data: bytes) -> None:
    from nvrc.report.diagnosis import diagnose_status
    from nvrc.report.status import from_json

    diagnose_status(from_json(data))


def host_log(data: bytes) -> None:
    from nvrc.commands.doctor import diagnose_stream, show

    for found in diagnose_stream("log", io.BytesIO(data)):
        for line in show(found):
            assert line.isprintable()


def lab_console(data: bytes) -> None:
    from nvrc_lab.watch.console import Story, hear_bytes

    hear_bytes(Story(), data)


def agent_output(data: bytes) -> None:
    from nvrc.pid1.agent_output import TOLD_BYTES, LastWords

    words = LastWords()
    words.hear(data)
    assert len(words.tell().encode("utf-8", "replace")) <= TOLD_BYTES


def log_datagram(data: bytes) -> None:
    from nvrc.machine.journal import Line, split_priority
    from nvrc.services.ledger import Ledger

    _, text = split_priority(data)
    assert "\n" not in text
    Ledger(["0000:41:00.0"]).hear(Line(1, 0, text), 1.0)


def kernel_record(data: bytes) -> None:
    from nvrc.machine.journal import KERNEL, Line, kernel_warning
    from nvrc.pid1.health import GpuHealth
    from nvrc.vocabulary.gpu import GpuRecord

    if text := kernel_warning(data):
        GpuHealth((GpuRecord(bdf="0000:41:00.0"),), lambda _sentence: None).hear(Line(0, KERNEL, text))


def ttrpc_request(data: bytes) -> None:
    from nvrc.pid1.farewell import Requests

    whole, halves = Requests().feed(data), Requests()
    assert whole == [*halves.feed(data[:len(data) // 2]), *halves.feed(data[len(data) // 2:])]


def ttrpc_response(data: bytes) -> None:
    from nvrc_lab.agent.ttrpc import read_response

    read_response("Check", data)


def vsock_packet(data: bytes) -> None:
    from nvrc_lab.devices.vsock import Switchboard, parse

    board = Switchboard()
    board.connect(1024)
    board.hear(parse(data))
    while board.has_packet:
        board.next_packet(4096)


def cdi_json(data: bytes) -> None:
    from guest_cdi.validate import check_text

    check_text("x.json", data)


def cdi_yaml(data: bytes) -> None:
    from guest_cdi.validate import check_text

    check_text("x.yaml", data)


def bundle(data: bytes) -> None:
    """The two documents with a NUL between them; every device of the one goes into the other."""
    from guest_cdi import inject
    from guest_cdi.validate import check_text

    config, _, spec = data.partition(b"\0")
    registry = inject.build_registry([[check_text("x.json" if spec[:1] == b"{" else "x.yaml", spec)]])
    arguments = inject.Arguments(root="/proc/self/fdinfo", names=list(registry.devices)[:8] or ["nvidia.com/gpu=0"])
    with as_file(config) as path:
        read, _mode = inject._read_config(str(path))
        inject._dump(str(path), inject._inject_into(str(path), registry, arguments, read))


def elf_soname(data: bytes) -> None:
    from guest_cdi.elf import check_loadable, read_soname

    with in_memory(data) as descriptor:
        read_soname(descriptor)
        check_loadable(descriptor)


def elf_note(data: bytes) -> None:
    from guest_cdi.hooks.elf_note import read_note

    with in_memory(data) as descriptor:
        read_note(descriptor)


def static_program(data: bytes) -> None:
    from guest_cdi.hooks.ldcache import is_static_program

    is_static_program(data)


def library_cache(data: bytes) -> None:
    from guest_cdi.ldcache import LibraryCache

    LibraryCache(data).paths("libcuda.so")


def loader_configuration(data: bytes) -> None:
    from guest_cdi.hooks.ldconf import musl_lines, parse_conf

    parse_conf(data.decode("utf-8", "surrogateescape"))
    musl_lines(data, ["/usr/lib/nvidia"])


def container_state(data: bytes) -> None:
    from guest_cdi.hooks.state import container_root

    container_root("", io.BytesIO(data))


def image_elf(data: bytes) -> None:
    from nvrc_build.tree.elf import is_program, read_needs

    read_needs(data, "/usr/bin/x")
    is_program(data)


def kernel_module(data: bytes) -> None:
    from nvrc.hardware.module_failure import find_vermagic

    find_vermagic(data)


def initrd(data: bytes) -> None:
    from nvrc_build.after.contents import _add, read_cpio
    from nvrc_build.tree.tree import Origin, Tree

    tree = Tree()
    for path, mode, content in read_cpio(data):
        _add(tree, path, mode, content, Origin(slice="x"))


def package(data: bytes) -> None:
    """What dpkg-deb, a process each time, has taken out of it: damaged packages as a whole have tests of their own."""
    from nvrc_build.supply.scripts import scripts_of

    scripts_of(io.BytesIO(data))


def archive(data: bytes) -> None:
    from nvrc_build.supply.extract import extract

    with as_file(data) as path, a_folder() as folder:
        extract("components", path, folder / "out")


def tar_headers(data: bytes) -> None:
    from nvrc_build.supply.tar import open_tar

    with open_tar(stream=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            assert 0 <= member.offset < member.offset_data <= len(data)


def agent_descriptors(data: bytes) -> None:
    from nvrc_build.products.descriptor import read_requests

    read_requests(data)


def variable_store(data: bytes) -> None:
    from nvrc_build.after.varstore import certificates, enrol

    certificates(data)
    enrol(data, b"\x30\x03abc")


def class_configuration(data: bytes) -> None:
    from nvrc_build.kata.extensions import read_class

    with as_file(data) as path:
        read_class(path)


def class_for_a_policy(data: bytes) -> None:
    from nvrc.commands.policy import class_line

    with as_file(data) as path:
        class_line(str(path))


def image_manifest(data: bytes) -> None:
    from nvrc_build.papers.inspect import summarise
    from nvrc_build.papers.inventory import read_inventory

    with as_file(data) as path:
        summarise(read_inventory(path))


def declaration(data: bytes) -> None:
    from nvrc_build.declared.declared import Image, Slice
    from nvrc_build.declared.toml import Findings, read_toml

    with as_file(data) as path:
        for kind in (Image, Slice):
            read_toml(kind, path, Findings(), "x.toml", {"name": "x"})


def verity_parameters(data: bytes) -> None:
    from nvrc_build.output.verity import parse_parameters

    parse_parameters(data.decode("utf-8", "replace"))


def partition_table(data: bytes) -> None:
    from nvrc_build.output.disk import read_partitions

    with as_file(data) as path:
        read_partitions(path)


def host_files(data: bytes) -> None:
    """A good host whose one file says something else: which one is the first byte's choice."""
    from fuzz.one_file import good_host
    from nvrc.commands.doctor_host import document, show
    from nvrc.preflight.preflight import Preflight, Result

    good = good_host()
    path = good.paths[data[0] % len(good.paths)] if data else good.paths[0]
    host, rows = good.but(path, data[1:]), good.ask(path, data)
    judged = ((row, tuple(row.judge(host))) for row in rows)  # what fails here, judge() would pass over
    found = Preflight(True, tuple(Result(row, judgements) for row, judgements in judged if judgements))
    document(found)
    for line in show(found, 120):
        assert line.isprintable() or not line


def apt_sources(data: bytes) -> None:
    from nvrc_build.supply.mirror import parse_deb822, parse_one_line

    text = data.decode("utf-8", "replace")
    parse_deb822(text)
    parse_one_line(text)


def tdx_firmware(data: bytes) -> None:
    from nvrc_build.after.tdvf import read_loader, read_sections
    from nvrc_build.ground.errors import BuildError

    for read in (read_sections, read_loader):
        with suppress(BuildError):
            read(Path("OVMF.fd"), data)


def kernel_image(data: bytes) -> None:
    """As large as the least that is taken for one, with the words that make it one."""
    from nvrc_build.after.kernel_image import change_header, image_digest, read_kernel
    from nvrc_build.ground.errors import BuildError
    from nvrc_build.products.given_kernel import release

    with as_file(data.ljust(4096, b"\0")) as path:
        release(path)
        kernel = read_kernel(path)
        for cmdline, initrd in (("", 0), ("vga=ext", 1 << 20)):
            with suppress(BuildError):
                image_digest(path, change_header(path, kernel, cmdline=cmdline, initrd=initrd, memory_mib=2048))


def attestation_report(data: bytes) -> None:
    from nvrc_build.after.evidence import bound, read_report

    with as_file(data) as path:
        assert all(line.isprintable() for line in bound(read_report(path), None))


def registry_manifest(data: bytes) -> None:
    from nvrc_build.after.oci import read_layers
    from nvrc_build.ground.errors import BuildError

    try:
        read_layers(data, 1 << 30)
    except BuildError as err:
        assert len(err.what) < 20_000
        raise


def provenance(data: bytes) -> None:
    from nvrc_build.after.provenance import read_subjects

    read_subjects(data, "x")


def reference_values(data: bytes) -> None:
    from nvrc_build.after.reference import compare_values

    with as_file(data) as path:
        for line in compare_values(path, {"tdx": {"mr_td": "00", "rtmr_1": {"any": "00"}, "keeps_kernel": True}, "version": 2}):
            assert line.isprintable()


def driver_file_list(data: bytes) -> None:
    from nvrc_build.declared.parts import FileList
    from nvrc_build.tree.filelist import read_filelist

    row = FileList(package="x", path="/x", types=("UTILITY_LIB",), categories=("compute",), without=("*x*",))
    read_filelist(data, row, "x", [])


def signed_module(data: bytes) -> None:
    from nvrc_build.products.kernel import SIGNED, modules_dep, read_module, split_signature

    with as_file(data) as path:
        modules = [read_module(path, "x.ko")]
    modules_dep(modules)
    split_signature(modules[0])
    split_signature(replace(modules[0], data=data + bytes(12) + SIGNED))


def scrape_request(data: bytes) -> None:
    from nvrc.beside.server import Server, _Connection

    listener, ours, theirs = socket.socket(socket.AF_UNIX), *socket.socketpair()
    with ours:
        server = Server(listener, lambda: b"page", lambda: 0.0)
        connection = _Connection(theirs, 1.0)
        server._open[theirs.fileno()] = connection
        server._selector.register(theirs, selectors.EVENT_READ, lambda: server._read(connection))
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        while server._open:
            server.serve(0)
        server.close()


def metrics_answer(data: bytes) -> None:
    from nvrc.beside.child import _answer_of
    from nvrc.beside.families import render
    from nvrc.beside.gpus import of_gpus

    if answer := _answer_of(data):
        render(of_gpus(answer)).decode()


def pci_space(data: bytes) -> None:
    from nvrc.hardware.links import ancestor, read_place

    one = read_place(EveryFile(data), "0000:41:00.0")  # type: ignore[arg-type]
    ancestor(one, one._replace(bdf="0000:42:00.0", bridges=one.bridges[1:]))


def extension_disk(data: bytes) -> None:
    from nvrc.extensions.disks import absent, find_disks, reconcile
    from nvrc.params.parse import parse

    verity = f"root_hash={'0' * 64},salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096"
    wanted = parse(f"kata.extension.gpu.verity_params={verity}".encode()).settings.extensions
    found = find_disks(OneDisk(*[*data.split(b"\0", 3), b"", b"", b"", b""][:4]))  # type: ignore[arg-type]
    absent(found, wanted)
    reconcile(found, wanted)


def pci_function(data: bytes) -> None:
    from nvrc.hardware.topology import classify, decide, scan

    decide(classify(scan(OneFunction(*[*data.split(b"\0", 3), b"", b"", b"", b""][:4]))))


def gpu_information(data: bytes) -> None:
    from nvrc.hardware.gpu_files import read_driver
    from nvrc.nvml.answers import NvmlGpu
    from nvrc.nvml.identity import check_identities

    listed = NvmlGpu(0, "0000:41:00.0", "GPU-00000000-0000-4000-8000-000000000000", "x", 0, "")
    check_identities([listed], read_driver(EveryFile(data), ["0000:41:00.0"]))  # type: ignore[arg-type]


def module_indexes(data: bytes) -> None:
    from nvrc.hardware.module_tree import read_tree

    read_tree(EveryFile(data), "", "6.12.0")  # type: ignore[arg-type]


def module_configuration(data: bytes) -> None:
    from nvrc.hardware.modprobe_config import read_config

    for remark in read_config(EveryFile(data)).remarks:  # type: ignore[arg-type]
        assert remark.isprintable()


@dataclass(frozen=True)
class EveryFile:
    """A machine whose every file says the same, and whose every folder has one."""

    data: bytes

    def list_dir(self, _path: str) -> tuple[str, ...]:
        return ("x.conf",)

    def read(self, _path: str, limit: int = 1 << 20) -> bytes:
        return self.data[:limit]

    def read_link(self, path: str) -> str:
        return f"../../../devices/pci0000:40/0000:40:01.0/{path.rpartition('/')[2]}"

    def read_parts(self, _path: str, at: int, size: int, following: Callable[[bytes], int]) -> None:
        while at:
            at = following(self.data[at:at + size])


@dataclass(frozen=True)
class OneDisk:
    """A disk of two partitions. All that sysfs says of it is the host's; the second one is as it should be."""

    serial: bytes
    partition: bytes
    size: bytes
    dev: bytes

    def list_dir(self, path: str) -> tuple[str, ...]:
        return ("vda",) if path == "/sys/block" else ("vda1", "vda2")

    def exists(self, _path: str) -> bool:
        return True

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        said = {"serial": b"extension-" + self.serial, "partition": self.partition, "size": self.size, "dev": self.dev}
        if "/vda2/" in path:
            said = {"partition": b"2\n", "size": b"8\n", "dev": b"254:2\n"}
        return said[path.rpartition("/")[2]][:limit]


@dataclass(frozen=True)
class OneFunction:
    """A bus whose one function says of itself what it likes."""

    vendor: bytes
    device: bytes
    pci_class: bytes
    vpd: bytes

    def list_dir(self, _path: str) -> tuple[str, ...]:
        return ("0000:41:00.0",)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        said = {"vendor": self.vendor, "device": self.device, "class": self.pci_class, "vpd": self.vpd}
        return said[path.rpartition("/")[2]][:limit]


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    """For what reads one file: a folder of its own costs more than most parsers."""
    with in_memory(data) as descriptor:
        yield Path(f"/proc/self/fd/{descriptor}")


@contextmanager
def a_folder() -> Iterator[Path]:
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.path.isdir(shared) else None) as folder:
        yield Path(folder)
