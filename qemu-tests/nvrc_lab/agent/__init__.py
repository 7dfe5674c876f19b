# SPDX-License-Identifier: Apache-2.0
"""Kata's side of the conversation with a real agent."""
