# SPDX-License-Identifier: Apache-2.0
"""`guest-cdi generate`: the reference's flags with their defaults, and our own for building and testing.

Parsing and reporting only; generate.py does the work. Flags may be written with one value each, several times, or
with values joined by commas.
"""

from __future__ import annotations

import argparse
import os
import sys

from guest_cdi.discover.hooks import ALL as ALL_HOOKS
from guest_cdi.discover.hooks import NAMES as HOOK_NAMES
from guest_cdi.discover.hooks import HookStyle
from guest_cdi.discover.nodes import list_drm_nodes
from guest_cdi.environment import add_variables
from guest_cdi.generate import Generated, Options, generate
from guest_cdi.gpu import Nvml
from guest_cdi.host import Host, LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Iterable, Sequence
from guest_cdi.locate import locate_nvml
from guest_cdi.modes import MODES, default_kind, describe_mode
from guest_cdi.naming import ALL, NONE, Strategy
from guest_cdi.nvml import OpenNvml
from guest_cdi.parser import Parser
from guest_cdi.prove import prove
from guest_cdi.render import FORMATS, publish, render
from guest_cdi.report import report_document, report_error
from guest_cdi.spec import Spec
from guest_cdi.versions import CURRENT, RELEASES, find_release

EXAMPLES = """examples:
  guest-cdi generate --output=/var/run/cdi/nvidia.yaml
  guest-cdi generate --driver-root=/run/kata-extensions/gpu --dev-root=/ \\
      --nvidia-cdi-hook-path=/run/kata-extensions/gpu/bin/nvidia-cdi-hook
  guest-cdi generate --mode imex --device-id 0 --output=/var/run/cdi/imex.yaml
  guest-cdi generate --root out/tree --nvml-library out/libnvidia-ml.so.1 --compat nvidia-ctk
"""

REFERENCE = "nvidia-ctk"
FEATURES = {
    "enable-explicit-driver-libraries": "mount libraries without a version in their name, too",
    "disable-ipc-discoverer": "leave the sockets out",
    "no-additional-gids-for-device-nodes": "do not add the groups of nodes that are not open to all",
    "disable-nvsandboxutils": "accepted; that library is never used",
}


class Arguments(argparse.Namespace):
    """What the parser fills in, with types."""

    output: str
    format: str | None
    mode: str
    driver_root: str
    dev_root: str
    hook_path: str
    ldconfig_path: str
    strategy: list[str]
    device_id: list[str]
    vendor: str
    kind_class: str
    library_search_path: list[str]
    config_search_path: list[str]
    disable_hook: list[str]
    enable_hook: list[str]
    feature_flag: list[str]
    no_all_device: bool
    root: str
    nvml_library: str
    compat: str | None
    hook_style: str
    reference_release: str
    keep_going: bool
    json: bool
    quiet: bool


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = Parser("generate", "Write the CDI document for the NVIDIA GPUs of this machine.", EXAMPLES, argv)
    add = parser.add_argument
    add("--output", default="", metavar="FILE", help="where to publish it; standard output if not given")
    add("--format", choices=tuple(FORMATS), help="default: by the name of the file, else yaml")
    add("--mode", "--discovery-mode", default="auto", choices=("auto", "nvml", *MODES),
        help="; ".join(("auto and nvml: GPUs, found through NVML",
                        *(f"{name}: {why}" for name, (_, why) in MODES.items()))))
    add("--driver-root", default="/", metavar="DIR", help="where the driver's files are")
    add("--dev-root", default="", metavar="DIR", help="where /dev is; default: the driver root")
    add("--nvidia-cdi-hook-path", "--nvidia-ctk-path", dest="hook_path", default="", metavar="FILE",
        help="the hook program; default: searched as nvidia-cdi-hook")
    add("--ldconfig-path", default="", metavar="FILE", help="ldconfig for the update-ldcache hook")
    _add_list(parser, "--device-name-strategy", "strategy", "index, uuid or type-index; default: index and uuid")
    _add_list(parser, "--device-id", "device_id", "only this device: index, UUID, all or none",
              "--device-ids", "--device", "--devices")
    add("--vendor", "--cdi-vendor", default="", help="first half of the kind; default: nvidia.com, by the mode")
    add("--class", "--cdi-class", dest="kind_class", default="", help="second half; default: gpu, by the mode")
    _add_list(parser, "--library-search-path", "library_search_path", "search libraries here only")
    _add_list(parser, "--config-search-path", "config_search_path", "search configuration here only")
    _add_list(parser, "--disable-hook", "disable_hook", f"leave out: {', '.join(HOOK_NAMES)} or all", "--disable-hooks")
    _add_list(parser, "--enable-hook", "enable_hook", "keep this one although disabled", "--enable-hooks")
    _add_list(parser, "--feature-flag", "feature_flag", "; ".join(f"{k}: {v}" for k, v in FEATURES.items()),
              "--feature-flags")
    add("--no-all-device", action="store_true", help="no device with everything")
    own = parser.add_argument_group("beyond the reference")
    own.add_argument("--root", default="/", metavar="DIR", help="treat DIR as / for everything that is read")
    own.add_argument("--nvml-library", default="", metavar="FILE", help="load NVML from this file of this machine")
    own.add_argument("--compat", choices=(REFERENCE,), help="write exactly what the reference writes")
    own.add_argument("--hook-style", choices=[style.value for style in HookStyle], default=HookStyle.AUTO.value,
                     help="start the hook program once per hook, or once for all that devices share, which only "
                          "guest-cdi itself knows; auto: combined if this very program, frozen, is the hook program")
    own.add_argument("--reference-release", default=CURRENT.name, metavar="X.Y",
                     help=f"the rules of this release: {', '.join(row.name for row in RELEASES)}")
    own.add_argument("--keep-going", action="store_true", help="leave faulty GPUs out and describe the others")
    own.add_argument("--json", action="store_true", help="report on standard error as JSON")
    own.add_argument("--quiet", action="store_true", help="no report, only errors")
    return parser


def _add_list(parser: argparse.ArgumentParser, flag: str, dest: str, text: str, *aliases: str) -> None:
    parser.add_argument(flag, *aliases, dest=dest, action="extend", type=_split, default=[], metavar="VALUE",
                        help=f"{text} (repeatable)")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def main(argv: Sequence[str]) -> int:
    """Exit status: 0 published, 1 a failure with its code, 2 a command line that cannot be meant."""
    try:
        arguments = build_parser(argv).parse_args(add_variables(argv, os.environ), Arguments())
    except CdiError as err:
        report_error(err, as_json="--json" in argv)
        return 2
    try:
        options = read_options(arguments)
        run(arguments, options)
    except CdiError as err:
        report_error(err, as_json=arguments.json)
        return 2 if err.code == "E_CDI_USAGE" else 1
    return 0


def run(arguments: Arguments, options: Options) -> None:
    if not os.path.isdir(arguments.root):
        raise CdiError("E_CDI_DRIVER_ROOT", f"--root {arguments.root} is not a directory", "unpack the tree first")
    host = LinuxHost(arguments.root)
    if arguments.mode in MODES:
        write_document(arguments, describe_mode(host, arguments.mode, options))
        return
    library = arguments.nvml_library or locate_nvml(host, options, arguments.root)
    with OpenNvml(library, has_drm=lambda bus_id: bool(list_drm_nodes(host, bus_id))) as nvml:
        result = describe(host, nvml, options)
    write_document(arguments, result.spec)
    if not arguments.quiet:
        report_document(result, as_json=arguments.json)


def write_document(arguments: Arguments, spec: Spec) -> None:
    text = render(spec, _choose_format(arguments))
    if arguments.output:
        publish(_output_path(arguments), text)
    else:
        _write_out(text)


def _write_out(text: bytes) -> None:
    if sys.stdout is None:
        raise CdiError("E_CDI_PUBLISH", "standard output is closed", "name a file with --output")
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    except OSError as err:
        raise CdiError("E_CDI_PUBLISH", f"standard output took no document: {err.strerror}",
                       "name a file with --output, or let its reader run to the end") from err


def describe(host: Host, nvml: Nvml, options: Options) -> Generated:
    """The document, resolved once by our own injector: what is published can be applied."""
    result = generate(host, nvml, options)
    if options.strict:
        prove(result.spec, host)
    return result


def read_options(arguments: Arguments) -> Options:
    """Every mistake of the command line at once."""
    mistakes: list[str] = []
    release = find_release(arguments.reference_release)
    if release is None:
        mistakes.append(f"--reference-release {arguments.reference_release}: known are "
                        + ", ".join(row.name for row in RELEASES))
    strict = arguments.compat != REFERENCE
    style = HookStyle(arguments.hook_style)
    if not strict and style is HookStyle.COMBINED:
        mistakes.append(f"--hook-style combined: the reference has no such hook, so not with --compat {REFERENCE}")
    strategies = arguments.strategy or [Strategy.INDEX.value, Strategy.UUID.value]
    mistakes += _unknown("--device-name-strategy", strategies, [entry.value for entry in Strategy])
    mistakes += [f"--device-name-strategy {name} is given twice" for name in _doubled(strategies)]
    mistakes += _unknown("--feature-flag", arguments.feature_flag, FEATURES)
    if strict:
        mistakes += [f"{flag} {path}: must be an absolute path" for flag, path in (
            ("--driver-root", arguments.driver_root), ("--dev-root", arguments.dev_root),
            ("--ldconfig-path", arguments.ldconfig_path)) if path and not path.startswith("/")]
        mistakes += _unknown("--disable-hook", arguments.disable_hook, (*HOOK_NAMES, ALL_HOOKS))
    mistakes += _unknown("--enable-hook", arguments.enable_hook, HOOK_NAMES)
    if mistakes or release is None:
        raise CdiError("E_CDI_USAGE", "; ".join(mistakes))
    vendor, kind_class = default_kind(arguments.mode, is_strict=strict)
    data_dirs = os.environ.get("XDG_DATA_DIRS", "") or "/usr/local/share:/usr/share"
    return Options(
        driver_root=arguments.driver_root or "/",
        dev_root=arguments.dev_root,
        hook_path=arguments.hook_path,
        ldconfig_path=arguments.ldconfig_path,
        hook_style=style,
        strategies=tuple(Strategy(name) for name in strategies),
        device_ids=tuple(arguments.device_id) or (ALL,),
        vendor=arguments.vendor or vendor,
        kind_class=arguments.kind_class or kind_class,
        library_search_paths=_paths(arguments.library_search_path),
        config_search_paths=_paths(arguments.config_search_path),
        data_dirs=_paths([data_dirs]),
        disabled_hooks=frozenset(arguments.disable_hook),
        enabled_hooks=frozenset(arguments.enable_hook),
        all_device=not arguments.no_all_device and NONE not in arguments.device_id,
        strict=strict,
        keep_going=arguments.keep_going,
        release=release,
        explicit_libraries="enable-explicit-driver-libraries" in arguments.feature_flag,
        sockets="disable-ipc-discoverer" not in arguments.feature_flag,
        node_gids="no-additional-gids-for-device-nodes" not in arguments.feature_flag,
    )


def _unknown(flag: str, values: Iterable[str], known: Iterable[str]) -> list[str]:
    names = tuple(known)
    return [f"{flag} {value or repr(value)}: known are {', '.join(names)}" for value in values if value not in names]


def _doubled(values: Sequence[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def _paths(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for value in values for part in value.split(":") if part)


def _choose_format(arguments: Arguments) -> str:
    """By the file's extension, for its readers go by it; a contradicting --format gives way, and is told so."""
    extension = os.path.splitext(arguments.output)[1].lower()
    implied = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}.get(extension)
    if implied and arguments.format not in (None, implied):
        print(f"guest-cdi: warning: {arguments.output} is read as {implied}; --format {arguments.format} is ignored",
              file=sys.stderr)
    return implied or arguments.format or "yaml"


def _output_path(arguments: Arguments) -> str:
    """A file with another extension would be read by nobody, so it gets one."""
    if os.path.isdir(arguments.output):
        raise CdiError("E_CDI_PUBLISH", f"{arguments.output} is a directory",
                       "name the file to make in it, such as nvidia.yaml")
    known = os.path.splitext(arguments.output)[1].lower() in (".json", ".yaml", ".yml")
    return arguments.output if known else f"{arguments.output}.{_choose_format(arguments)}"
