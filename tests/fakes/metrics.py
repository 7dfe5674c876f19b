# SPDX-License-Identifier: Apache-2.0
"""A page of metrics, read by Prometheus's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: bytes) -> Series:
    """Every series with its value, as Prometheus would have it."""
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text.decode()) for sample in family.samples}


def value(text: bytes, name: str, **labels: str) -> float | None:
    return parse(text).get((name, tuple(sorted(labels.items()))))
