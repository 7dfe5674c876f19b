# SPDX-License-Identifier: Apache-2.0
"""What is written beside an image: manifest, bills of materials, pictures, comparisons."""
