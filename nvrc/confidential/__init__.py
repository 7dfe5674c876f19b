# SPDX-License-Identifier: Apache-2.0
"""What ties a confidential guest to what its owner measured. Loaded only where a machine or a parameter asks for it."""
