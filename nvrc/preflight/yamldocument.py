# SPDX-License-Identifier: Apache-2.0
"""YAML as plain values, from files that others wrote. Whatever is wrong with one is an exception of some kind.

PyYAML copies what a merge key (`<<`) names, in front of any alias of it: nine lines of ten aliases have it make a
billion entries before anybody sees one. A whole number on base 60 takes it the square of its length.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

_INT, _MERGE = "tag:yaml.org,2002:int", "tag:yaml.org,2002:merge"
_LONGEST_NUMBER = 1024


def read_yaml(text: str, most_merged: int) -> object:
    """`most_merged`: how many entries of mappings may be merged into others."""
    loader = _loader_class()(text)
    loader.left = most_merged  # type: ignore[attr-defined]
    try:
        found: object = loader.get_single_data()
    finally:
        loader.dispose()
    return found


def _loader_class() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        left = 0

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            for key, value in node.value:
                if key.tag == _MERGE:
                    for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                        self._count_merged(merged)
            super().flatten_mapping(node)

        def _count_merged(self, node: yaml.Node) -> None:
            """It is flat from then on, and is merged as it is."""
            if isinstance(node, yaml.MappingNode):
                self.flatten_mapping(node)
                self.left -= 1 + len(node.value)
            if self.left < 0:
                raise yaml.YAMLError("its merge keys make it larger than a file may be")

    Loader.add_constructor(_INT, _read_whole_number)
    return Loader


def _read_whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    text = loader.construct_scalar(node)
    return text if len(str(text)) > _LONGEST_NUMBER else loader.construct_yaml_int(node)
