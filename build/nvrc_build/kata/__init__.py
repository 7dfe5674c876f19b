# SPDX-License-Identifier: Apache-2.0
"""What a node and a cluster need to run an image under Kata Containers."""
