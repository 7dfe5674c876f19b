# SPDX-License-Identifier: Apache-2.0
"""Named tuples, records, enumerations and the names of annotations, without what the standard library's cost to load.

`dataclasses`, `enum`, `typing` and `collections` take a third of the start of a frozen program, and every class made
with them compiles text. PID 1, its workers and the container hooks start on every boot, so what they import takes these
names from here. A type checker sees the standard library's own; at run time they are the part of it that is in use:

    NamedTuple   tuples with names: defaults, keywords, `_fields`, `_replace`, `_asdict`; no `_make`
    dataclass    `frozen`, `slots` (always) and `kw_only`, `field(default_factory=)`, no `__post_init__`; `replace`.
                 `dataclasses.fields` and `is_dataclass` work on them. A frozen one has its values in a dictionary,
                 which is made at once where slots are filled one by one, and takes no other attribute all the same
    lru_cache    with `maxsize`; `partial` is the standard one
    Enum         plain members with `name` and `value`; an equal value makes an alias; no `Flag`, no `auto`
    the rest     names for annotations, which stay text, and so are nothing at all

tests/guest_cdi/lean/test_light.py holds each of them to the standard library's behaviour.
"""

from __future__ import annotations

__all__ = [
    "TYPE_CHECKING", "BinaryIO", "Callable", "Collection", "Enum", "Iterable", "Iterator", "Mapping", "NamedTuple",
    "NoReturn", "ParamSpec", "Protocol", "Self", "Sequence", "TextIO", "TypeAlias", "TypeVar", "assert_never", "cast",
    "dataclass", "deque", "field", "lru_cache", "partial", "replace",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from dataclasses import dataclass, field, replace
    from enum import Enum
    from functools import lru_cache, partial
    from typing import (
        BinaryIO,
        NamedTuple,
        NoReturn,
        ParamSpec,
        Protocol,
        Self,
        TextIO,
        TypeAlias,
        TypeVar,
        assert_never,
        cast,
    )
else:
    from _collections import _tuplegetter, deque
    from _collections_abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from _functools import _lru_cache_wrapper, partial

    _NOTHING = object()
    _set = object.__setattr__

    BinaryIO = NoReturn = Self = TextIO = TypeAlias = None

    class _ProtocolMaker(type):
        """A protocol says nothing at run time, so all of them are one class."""

        def __new__(cls, name, bases, _body):
            return Protocol if bases else type.__new__(cls, name, bases, {"__slots__": ()})

    class Protocol(metaclass=_ProtocolMaker):
        pass

    def TypeVar(_name, **_more):  # noqa: N802 - the name it stands for
        return None

    ParamSpec = TypeVar

    def lru_cache(*, maxsize):
        return lambda function: _lru_cache_wrapper(function, maxsize, False, lambda *figures: figures)

    def cast(_kind, value):
        return value

    def assert_never(value):
        raise AssertionError(f"{value!r} should have been dealt with")

    def _show(name, pairs):
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in pairs)})"

    def _bind(name, fields, defaults, args, given, *, positional):
        """The values of all fields in their order, or TypeError in the words of a call that does not fit."""
        if len(args) > positional:
            raise TypeError(f"{name}() takes {positional} positional arguments but {len(args)} were given")
        values = list(args)
        for key in fields[len(args):]:
            value = given.pop(key, _NOTHING) if given else _NOTHING
            if value is _NOTHING:
                value = defaults.get(key, _NOTHING)
                if value is _NOTHING:
                    raise TypeError(f"{name}() is missing the argument {key!r}")
                if type(value) is _Field:
                    value = value.default_factory()
            values.append(value)
        if given:
            key = next(iter(given))
            how = "multiple values for" if key in fields else "an unexpected keyword"
            raise TypeError(f"{name}() got {how} argument {key!r}")
        return values

    # Named tuples. What all classes do alike is one function for all: of those there are two hundred, in each process.

    class _NamedTupleMaker(type):
        def __new__(cls, name, _bases, body):
            fields = tuple(body.get("__annotations__", ()))
            defaults = {key: body[key] for key in fields if key in body}
            body.update({key: _tuplegetter(index, None) for index, key in enumerate(fields)})
            body.setdefault("__repr__", _show_items)
            body.update(__slots__=(), __match_args__=fields, _fields=fields, _field_defaults=defaults, __new__=_create,
                        _replace=_replace_items, _asdict=_name_items)
            return type(name, (tuple,), body)

    def _create(kind, *args, **given):
        fields = kind._fields
        if given or len(args) != len(fields):
            args = _bind(kind.__name__, fields, kind._field_defaults, args, given, positional=len(fields))
        return tuple.__new__(kind, args)

    def _show_items(self):
        return _show(type(self).__name__, zip(self._fields, self, strict=True))

    def _name_items(self):
        return dict(zip(self._fields, self, strict=True))

    def _replace_items(self, **changes):
        found = type(self)(*(changes.pop(key, value) for key, value in zip(self._fields, self, strict=True)))
        if changes:
            raise TypeError(f"Got unexpected field names: {list(changes)}")
        return found

    NamedTuple = type.__new__(_NamedTupleMaker, "NamedTuple", (), {})

    # Records

    class _Field:
        __slots__ = ("default_factory",)

    def field(*, default_factory):
        made = _Field()
        made.default_factory = default_factory
        return made

    class _StandardFields:
        """`__dataclass_fields__` of a class, made by dataclasses itself when somebody asks for it."""

        def __get__(self, _instance, owner):
            from dataclasses import field as standard
            from dataclasses import make_dataclass

            def describe(key):
                if key not in owner._defaults:
                    return standard()
                value = owner._defaults[key]
                if type(value) is _Field:
                    return standard(default_factory=value.default_factory)
                return standard(default=value)

            rows = [(key, owner.__annotations__[key], describe(key)) for key in owner.__slots__]
            owner.__dataclass_fields__ = made = make_dataclass(owner.__name__, rows, kw_only=True).__dataclass_fields__
            return made

    def dataclass(*, frozen=False, slots, kw_only=False):
        assert slots  # noqa: S101 - what this one is made for
        return lambda owner: _make_record(owner, is_frozen=frozen, is_keyed=kw_only)

    def _make_record(owner, *, is_frozen, is_keyed):
        body = dict(owner.__dict__)
        fields = tuple(body.get("__annotations__", ()))
        defaults = {key: body.pop(key) for key in fields if key in body}
        positional = 0 if is_keyed else len(fields)

        for key in ("__dict__", "__weakref__"):
            body.pop(key, None)
        body.update(__init__=_set_up, _is_frozen=is_frozen, _defaults=defaults, _keys=frozenset(fields),
                    __match_args__=fields[:positional], __dataclass_fields__=_StandardFields(),
                    _has_makers=any(type(value) is _Field for value in defaults.values()))
        body.setdefault("__repr__", _show_fields)
        if not is_frozen:
            body.update(__slots__=fields, __eq__=_is_equal, __hash__=None)
            return type(owner.__name__, owner.__bases__, body)
        body.update(__eq__=_is_same, __hash__=_digest, __setattr__=_refuse, __delattr__=_refuse)
        made = type(owner.__name__, owner.__bases__, body)
        made.__slots__ = fields  # by this name, what has a record's fields finds them
        return made

    def _set_up(self, *args, **given):
        kind = type(self)
        values = {**kind._defaults, **given}
        if args or kind._has_makers or values.keys() != kind._keys:
            fields = kind.__slots__
            values = dict(zip(fields, _bind(kind.__name__, fields, kind._defaults, args, given,
                                            positional=len(kind.__match_args__)), strict=True))
        if kind._is_frozen:
            _set(self, "__dict__", values)
            return
        for key, value in values.items():
            _set(self, key, value)

    def _is_equal(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, key) == getattr(other, key) for key in self.__slots__)

    def _is_same(self, other):
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def _digest(self):
        values = self.__dict__
        return hash(tuple([values[key] for key in self.__slots__]))

    def _show_fields(self):
        return _show(type(self).__name__, ((key, getattr(self, key)) for key in self.__slots__))

    def _refuse(self, key, *_value):
        raise AttributeError(f"cannot change field {key!r} of {type(self).__name__}")

    def replace(record, /, **changes):
        """Another one of the same class, with these fields changed; also of a class that dataclasses made."""
        kind = type(record)
        values = getattr(record, "__dict__", None)
        if values is None:
            values = {key: getattr(record, key) for key in kind.__slots__}
        return kind(**{**values, **changes})

    # Enumerations

    class _EnumMaker(type):
        def __new__(cls, name, bases, body):
            found = {key: value for key, value in body.items()
                     if not key.startswith("_") and not hasattr(value, "__get__")} if bases else {}
            kept = {key: value for key, value in body.items() if key not in found}
            made = type.__new__(cls, name, bases, {**kept, "__slots__": () if bases else ("name", "value")})
            members = {}
            for key, value in found.items():
                member = members.get(value)
                if member is None:
                    member = object.__new__(made)
                    _set(member, "name", key)
                    _set(member, "value", value)
                    members[value] = member
                type.__setattr__(made, key, member)
            type.__setattr__(made, "_members", members)
            return made

        def __call__(cls, value):
            found = value if type(value) is cls else cls._members.get(value)
            if found is None:
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")
            return found

        def __iter__(cls):
            return iter(cls._members.values())

        def __len__(cls):
            return len(cls._members)

        def __contains__(cls, member):
            return type(member) is cls

        def __setattr__(cls, key, _value):
            raise AttributeError(f"cannot set {key!r} of {cls.__name__}")

    class Enum(metaclass=_EnumMaker):
        __setattr__ = __delattr__ = _refuse

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __str__(self):
            return f"{type(self).__name__}.{self.name}"

        def __copy__(self):
            return self

        def __deepcopy__(self, _memo):
            return self
