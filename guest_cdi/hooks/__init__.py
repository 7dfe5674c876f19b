# SPDX-License-Identifier: Apache-2.0
"""The createContainer hooks: what a CDI document cannot say as a mount or a node."""
