# SPDX-License-Identifier: Apache-2.0
"""What is asked of NVIDIA's library, in a forked worker: its requests, the answers, and what follows from them."""
