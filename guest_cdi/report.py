# SPDX-License-Identifier: Apache-2.0
"""What `guest-cdi generate` says on standard error: what was made, or what failed; in words or as JSON."""

from __future__ import annotations

import sys

from guest_cdi.generate import Generated
from guest_cdi.lean.coded import printable
from guest_cdi.lean.errors import CdiError
from guest_cdi.parser import SCHEMA, write_error, write_json


def report_document(result: Generated, *, as_json: bool) -> None:
    """What was made. No UUIDs: a confidential guest may not want to tell which hardware it has."""
    spec = result.spec
    common = spec.container_edits
    if as_json:
        write_json({
            "schema": SCHEMA, "version": spec.version, "driver": result.driver_version or None,
            "kind": spec.kind, "devices": len(spec.devices),
            "nodes": len(common.device_nodes), "mounts": len(common.mounts), "hooks": len(common.hooks),
            "skipped": [{"device": entry.device, "code": entry.reason.code, "what": entry.reason.what,
                         "hint": entry.reason.hint or None} for entry in result.skipped],
            "missing": list(result.missing),
        }, sys.stderr)
        return
    for entry in result.skipped:
        print(f"guest-cdi: warning: left out {printable(entry.device)}: {entry.reason}", file=sys.stderr)
    driver = printable(result.driver_version)
    print(f"guest-cdi: CDI {spec.version}, driver {driver}, {len(spec.devices)} devices, "
          f"{len(common.device_nodes)} common nodes, {len(common.mounts)} mounts, {len(common.hooks)} hooks; "
          f"not present: {printable(', '.join(result.missing)) or 'nothing'}", file=sys.stderr)


def report_error(err: CdiError, *, as_json: bool) -> None:
    if as_json:
        write_error(err, sys.stderr)
    else:
        print(f"guest-cdi: error: {err}", file=sys.stderr)
