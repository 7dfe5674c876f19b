# SPDX-License-Identifier: Apache-2.0
"""What hosts keep of a VM: logs of runtimes in their formats, several VMs in one stream, events of pods."""
