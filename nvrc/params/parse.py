# SPDX-License-Identifier: Apache-2.0
"""From a command line and a policy to typed settings, and to every mistake in the line at once.

`parse` never raises. An error is a line that must not boot; a warning is a word that would be ignored; a notice is one
that works but should be written otherwise. `nvrc.strict` turns warnings into errors. Words that are not ours are the
kernel's or the agent's: nothing here acts on them, and only a policy bounds them.
"""

from __future__ import annotations

from guest_cdi.lean.light import Collection, Enum, Iterable, Iterator, Mapping, NamedTuple, Sequence
from nvrc.params.cmdline import KERNEL_KEEPS, Token, plain, shown, tokenise, wants_cgroup_v2
from nvrc.params.extension import Extension, VerityParams, read_name, unknown_items
from nvrc.params.module_options import driver_option, read_options, refuse_option
from nvrc.params.policy import NO_POLICY, Policy
from nvrc.params.settings import Settings
from nvrc.params.table import PARAMS, Param, find, is_ours, wild_part
from nvrc.params.values import EXPORTER_PORT, PORT_TAKEN, MalformedError, ReadyRule, ReadyState, Value, text
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.nearmiss import closest, distance

__all__ = ["NO_POLICY", "Parsed", "Policy", "Problem", "Settings", "Severity", "Source", "Token", "parse", "tokenise"]

_OURS, _EXTENSION, _VERITY = "nvrc", "kata.extension.", ".verity_params"
_NAMES = {name: row.name for row in PARAMS if not row.is_pattern for name in (row.name, *row.aliases)}
_TAILS = {name.removeprefix(_OURS) for name in _NAMES}
_HINTS = 8  # guessing costs time, and a line of hundreds of unknown names is not a typing mistake


class Severity(Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


class Source(Enum):
    DEFAULT = "default"
    COMMAND_LINE = "command line"
    ALIAS = "command line, old name"
    POLICY = "policy"
    INITDATA = "initdata"


class Problem(NamedTuple):
    severity: Severity
    parameter: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.parameter}: {self.what}" + (f", {self.hint}" if self.hint else "")


class Parsed(NamedTuple):
    """With errors present, a parameter that has one shows its default in `settings`: do not boot from it."""

    settings: Settings
    sources: tuple[tuple[str, Source], ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """All that is no error, notices included: what the console shows at any log level."""
        return tuple(problem for problem in self.problems if problem.severity is not Severity.ERROR)

    @property
    def is_clean(self) -> bool:
        """Nothing in the line would be refused or ignored."""
        return all(problem.severity is Severity.NOTICE for problem in self.problems)

    def source(self, field: str) -> Source:
        return dict(self.sources)[field]

    def described(self) -> Iterator[tuple[str, str, Source]]:
        """Name, value as text and source of every parameter, extensions one by one."""
        sources = dict(self.sources)
        for row in PARAMS:
            source = sources[row.field]
            if row.is_pattern:
                for extension in self.settings.extensions:
                    yield f"{_EXTENSION}{extension.name}{_VERITY}", extension.verity.text(), source
            else:
                yield row.name, text(setting(self.settings, row)), source

    def raise_on_error(self) -> None:
        """All errors on one line. The console cuts long lines, so the line begins with how many there are."""
        if self.errors:
            count = f"{len(self.errors)} mistakes: " if len(self.errors) > 1 else ""
            raise NvrcError("E_PARAMETERS", count + "; ".join(str(problem) for problem in self.errors))


class _Given(NamedTuple):
    row: Param
    name: str
    key: str
    given: str
    value: Value
    source: Source


def parse(cmdline: bytes, policy: Policy = NO_POLICY, initdata: tuple[Token, ...] = ()) -> Parsed:
    """`initdata`: what a pod's own file adds. It stands for its pod where the line stands for a class, so it holds."""
    tokens = tokenise(cmdline)
    given: list[_Given] = []
    problems = list(_line_problems(cmdline, tokens))
    for token in tokens:
        row = find(token.key)
        if row is None:
            problems += _driver_option(token, policy)
            problems += _unknown(token, policy, with_hint=len(problems) < _HINTS)
            continue
        read = _read(row, token, policy)
        if isinstance(read, Problem):
            problems.append(read)
        else:
            given.append(read)
    for read in _of_initdata(initdata, policy):
        (problems if isinstance(read, Problem) else given).append(read)  # type: ignore[arg-type]
    problems += (Problem(Severity.ERROR, plain(key), what, hint) for key, what, hint in policy.refuse_words(cmdline))
    problems += _remarks(given)
    pins = [_Given(row, name, name, "", value, Source.POLICY)
            for name, value in policy.pins.items() if (row := find(name))]
    chosen = {one.name: one for one in (*given, *pins)}
    settings = _settings(chosen.values(), tokens)
    spoken_of = {row.name for token in (*tokens, *initdata) if (row := find(token.key))} | policy.pins.keys()
    problems += _outside_limits(settings, spoken_of, policy)
    problems += _contradictions(settings, chosen)
    if settings.strict:
        problems = [_promoted(problem) for problem in problems]
    found = {one.row.field: one.source for one in chosen.values()}
    sources = tuple((row.field, found.get(row.field, Source.DEFAULT)) for row in PARAMS)
    return Parsed(settings=settings, sources=sources, problems=tuple(dict.fromkeys(problems)))


def setting(settings: Settings, row: Param) -> Value:
    """The value that an ordinary row's field has."""
    value: Value = getattr(settings, row.field)
    return value


def _read(row: Param, token: Token, policy: Policy) -> _Given | Problem:
    """The word's value, or why it has none: malformed, or not the command line's to decide."""
    name = token.key if row.is_pattern else row.name
    try:
        value = _value(row, token)
    except MalformedError as err:
        return Problem(Severity.ERROR, plain(token.key), str(err))
    refusal = _refusal(name, value, policy)
    if refusal:
        return Problem(Severity.ERROR, plain(token.key), refusal)
    source = Source.ALIAS if token.key in row.aliases else Source.COMMAND_LINE
    return _Given(row, name, token.key, token.value or "", value, source)


def _of_initdata(tokens: tuple[Token, ...], policy: Policy) -> Iterator[_Given | Problem]:
    for number, token in enumerate(tokens):
        row = find(token.key)
        if row is None:
            hint = _meant(token.key) if number < _HINTS else None
            yield Problem(Severity.ERROR, plain(token.key), "is in initdata and is not a parameter",
                          f"did you mean {hint}?" if hint else "")
        elif not policy.allows_initdata(token.key if row.is_pattern else row.name):
            yield Problem(Severity.ERROR, plain(token.key), "is not among what the image's policy lets initdata decide")
        else:
            read = _read(row, token, policy)
            yield read if isinstance(read, Problem) else read._replace(source=Source.INITDATA)


def _refusal(name: str, value: Value, policy: Policy) -> str | None:
    """Why the image's policy does not let a command line give this value."""
    if policy.denies(name):
        return "is denied by the image's policy"
    if not policy.allows(name):
        return "is not on the list that the image's policy allows"
    if name in policy.pins and policy.pins[name] != value:
        return f"is {text(value)}, but the image's policy pins it to {text(policy.pins[name])}"
    limit = policy.limits.get(name)
    if limit and not limit.admits(value):
        return f"is {text(value)}, but the image's policy admits {limit.text()}"
    return None


def _value(row: Param, token: Token) -> Value:
    if row.is_pattern:
        read_name(wild_part(row, token.key))
    if token.value is None:
        form = "the five items of a verified image" if row.is_pattern else row.kind.form
        raise MalformedError(f"has no value; write {token.key}= and {form}")
    return row.kind.parse(token.value)


def _line_problems(cmdline: bytes, tokens: Sequence[Token]) -> Iterator[Problem]:
    if len(cmdline.rstrip(b"\n")) >= KERNEL_KEEPS:
        yield Problem(Severity.WARNING, "command line", f"has {len(cmdline)} bytes, and x86-64 and arm64 kernels keep "
                      f"{KERNEL_KEEPS}: what follows may be lost, and the last word may be half of one")
    if tokens and tokens[-1].unclosed:
        swallowed = f"{tokens[-1].key}={tokens[-1].value or ''}"
        ours = any(mark in swallowed[1:] for mark in (f"{_OURS}.", _EXTENSION))
        yield Problem(Severity.ERROR if ours else Severity.WARNING, plain(tokens[-1].key),
                      "opens a quote that never closes, so it takes the rest of the line" + (
                          " and the parameters in it" if ours else ""))


def _driver_option(token: Token, policy: Policy) -> Iterator[Problem]:
    """A word for one of NVIDIA's modules: never a parameter of ours, and yet for the policy to bound."""
    name = driver_option(token.key)
    if name is None:
        return
    refusal = _refusal(name, None, policy) or refuse_option(token)
    if refusal or not policy.allows_option(name):
        yield Problem(Severity.ERROR, plain(token.key), refusal or
                      "is an option of the driver, and the image's policy has no allow list that names it")
    else:
        yield Problem(Severity.NOTICE, plain(token.key), "goes to the driver's module as it is")


def _unknown(token: Token, policy: Policy, *, with_hint: bool) -> Iterator[Problem]:
    """A word that no row knows is a problem if it looks like one of ours; otherwise it is somebody else's."""
    key = token.key.lower()
    head, _, _ = key.partition(".")
    ours = is_ours(token.key)
    if not ours and not (key[len(head):] in _TAILS and distance(head, _OURS, 1) <= 1):
        return
    hint = _meant(token.key) if with_hint else None
    refusal = _refusal(token.key, None, policy) if ours else None
    yield Problem(Severity.ERROR if refusal else Severity.WARNING, plain(token.key),
                  f"unknown, and {refusal}" if refusal else "unknown", f"did you mean {hint}?" if hint else "")


def _meant(key: str) -> str | None:
    if key.lower().startswith(_EXTENSION):
        name, _, _ = key[len(_EXTENSION):].partition(".")
        return f"{_EXTENSION}{plain(name)}{_VERITY}" if name else None
    near = closest(key, _NAMES)
    return _NAMES[near] if near else None


def _remarks(given: Sequence[_Given]) -> Iterator[Problem]:
    """What can be said of words that were read well: old names, repetitions, items that nobody knows."""
    last = {one.name: one.value for one in given}
    pod = {one.name for one in given if one.source is Source.INITDATA}
    for one in given:
        if one.source is Source.ALIAS:
            yield Problem(Severity.NOTICE, one.name, f"given by its old name {one.key}, which works")
        if one.row.is_pattern and (unknown := unknown_items(one.given)):
            names = ", ".join(shown(item) for item in unknown)
            yield Problem(Severity.WARNING, one.name, f"has unknown items, which are ignored: {names}")
        if one.value == last[one.name]:
            continue
        if one.row.is_pattern:
            yield Problem(Severity.ERROR, one.name, "given more than once with different items")
        elif one.name in pod and one.source is not Source.INITDATA:
            yield Problem(Severity.NOTICE, one.name, f"is {text(one.value)} on the command line; "
                          f"{text(last[one.name])} of initdata holds")
        else:
            yield Problem(Severity.WARNING, one.name,
                          f"given more than once with different values; the last one, {text(last[one.name])}, holds")


def _settings(chosen: Iterable[_Given], tokens: Sequence[Token]) -> Settings:
    values: dict[str, Value] = {}
    extensions: list[Extension] = []
    for one in chosen:
        if isinstance(one.value, VerityParams):
            extensions.append(Extension(name=wild_part(one.row, one.name), verity=one.value))
        else:
            values[one.row.field] = one.value
    # Each row's kind yields its field's type; a test compares the two.
    return Settings(**values, extensions=tuple(extensions), cgroup_v2=wants_cgroup_v2(tokens),  # type: ignore[arg-type]
                    agent_has_config=any(token.key == "agent.config_file" for token in tokens),
                    module_options=read_options(token for token in tokens if find(token.key) is None))


def _outside_limits(settings: Settings, spoken_of: Collection[str], policy: Policy) -> Iterator[Problem]:
    """Values that nobody gave must be inside their limits too; what is unset stays as the hardware has it."""
    for name, limit in policy.limits.items():
        row = find(name)
        if row is None or row.is_pattern or name in spoken_of:
            continue
        value = setting(settings, row)
        if value is not None and not limit.admits(value):
            yield Problem(Severity.ERROR, name, f"is not given, and its default {text(value)} is not among what the "
                          f"image's policy admits: {limit.text()}")


def _contradictions(settings: Settings, chosen: Mapping[str, _Given]) -> Iterator[Problem]:
    if settings.ready is ReadyRule.NEVER and settings.ready_state is ReadyState.READY:
        pinned = chosen["nvrc.ready"].source is Source.POLICY
        yield Problem(Severity.NOTICE if pinned else Severity.WARNING, "nvrc.smi.srs",
                      f"asks for the ready state, but {'the policy pins ' if pinned else ''}nvrc.ready=never wins")
    if settings.dcgm and settings.metrics_port == EXPORTER_PORT:
        yield Problem(Severity.WARNING, "nvrc.metrics", PORT_TAKEN)


def _promoted(problem: Problem) -> Problem:
    return problem._replace(severity=Severity.ERROR) if problem.severity is Severity.WARNING else problem
