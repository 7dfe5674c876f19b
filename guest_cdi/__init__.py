# SPDX-License-Identifier: Apache-2.0
"""GPUs for containers as a CDI document: generate, validate, inject, and the hooks of the document.

Start at generate.py for the document, prove.py and render.py for its publication. Nothing is imported here: a hook
must start in milliseconds. Usable on any Linux host with the NVIDIA driver; never imports nvrc.
"""

__version__ = "0.1.0"
