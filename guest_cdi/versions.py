# SPDX-License-Identifier: Apache-2.0
"""What the releases of the reference generator do differently, one row each. Code asks the row, never the number."""

from __future__ import annotations

from guest_cdi.lean.light import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    name: str
    node_details: bool = True               # major, minor, mode, permissions, gid and additionalGids are written
    ipc_read_only: bool = False             # sockets are mounted with "ro"
    application_profile: bool = True        # the update-application-profile hook is emitted
    legacy_nvvm: bool = True                # libnvidia-nvvm70.so.* is a driver library
    all_library_dirs: bool = True           # every directory with driver libraries counts, not only libcuda's
    fixed_config_paths: bool = True         # graphics files go below /usr/share and /etc wherever they were found
    opencl: bool = True                     # the OpenCL ICD file is mounted
    egl_xcb_xlib: bool = True               # EGL xcb and xlib platforms and nvidia-xconfig are included
    egl_wayland2: bool = True
    bare_ldcache_hook: bool = False         # update-ldcache is emitted even with no folder to update
    management_compat: bool = True          # the mode `management` has the hook enable-cuda-compat
    nvml_is_witness: bool = True            # without libcuda, libnvidia-ml tells version and directory


CURRENT = Release(name="1.20")
RELEASE_1_19 = Release(name="1.19", application_profile=False, legacy_nvvm=False, all_library_dirs=False,
                       fixed_config_paths=False, opencl=False, egl_xcb_xlib=False, bare_ldcache_hook=True,
                       management_compat=False)
RELEASE_1_18 = Release(name="1.18", node_details=False, ipc_read_only=True, application_profile=False,
                       legacy_nvvm=False, all_library_dirs=False, fixed_config_paths=False, opencl=False,
                       egl_xcb_xlib=False, egl_wayland2=False, bare_ldcache_hook=True,
                       management_compat=False, nvml_is_witness=False)

RELEASES = (CURRENT, RELEASE_1_19, RELEASE_1_18)


def find_release(name: str) -> Release | None:
    """The row for a release as people write it: "1.20", "1.19.1", "v1.18.1"."""
    wanted = name.removeprefix("v")
    return next((row for row in RELEASES if wanted == row.name or wanted.startswith(f"{row.name}.")), None)
