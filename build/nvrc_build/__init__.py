# SPDX-License-Identifier: Apache-2.0
"""The image factory: declarations in rootfs/ into guest images. `build` is the public door; see docs/images.md."""

from nvrc_build.ground.errors import BuildError
from nvrc_build.pipeline import Image, build, headers

__all__ = ["BuildError", "Image", "build", "headers"]
