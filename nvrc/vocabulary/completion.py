# SPDX-License-Identifier: Apache-2.0
"""A program's completion for bash, zsh and fish, made from its parsers: commands, options, values that are a choice.

Where none of these fits, the shell completes files. The scripts start no program.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from nvrc.vocabulary.manual import Command, Program, explain, options_of, value_of, write_page


def pages_of(program: Program) -> Iterator[tuple[str, str]]:
    """Path in the tree, text."""
    yield f"docs/man/{program.name}.1", write_page(program)
    yield f"docs/completion/{program.name}.bash", write_bash(program)
    yield f"docs/completion/_{program.name}", write_zsh(program)
    yield f"docs/completion/{program.name}.fish", write_fish(program)


def write_bash(program: Program) -> str:
    function = f"_{program.name.replace('-', '_')}"
    return _join([
        f"# bash completion of {program.name}: source it, or lay it into a folder that bash-completion reads.",
        f"{function}() {{",
        '    local at="" word cur="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do', *_descend(program), "    done",
        '    case "$at $previous" in',
        *(_case(f"{at} {name}", f"words={_quoted(' '.join(values))}") for at, name, values in _choices(program)),
        '        *) case "$at" in',
        *(_case(_at(row.words), f"words={_quoted(' '.join(dict(_described(program, row))))}")
          for row in program.commands),
        "        esac ;;", "    esac", '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")', "}",
        f"complete -o default -F {function} {program.name}"])


def write_zsh(program: Program) -> str:
    function = f"_{program.name}"
    return _join([
        f"#compdef {program.name}", f"{function}() {{", '    local at="" word previous="${words[CURRENT-1]}"',
        "    local -a rows", '    for word in "${(@)words[2,CURRENT-1]}"; do', *_descend(program), "    done",
        '    case "$at $previous" in',
        *(_case(f"{at} {name}", f"rows=({' '.join(map(_quoted, values))})") for at, name, values in _choices(program)),
        '        *) case "$at" in',
        *(_case(_at(row.words), f"rows=({_rows(program, row)})") for row in program.commands),
        "        esac ;;", "    esac", f"    _describe {program.name} rows || _files", "}",
        f'if [[ "$funcstack[1]" == {function} ]]; then {function} "$@"; else compdef {function} {program.name}; fi'])


def _rows(program: Program, command: Command) -> str:
    return " ".join(_quoted(f"{name}:{text}" if text else name) for name, text in _described(program, command))


def write_fish(program: Program) -> str:
    lines = [f"# fish completion of {program.name}: lay it into ~/.config/fish/completions."]
    for command in program.commands:
        below = program.below(command.words)
        conditions = [f"__fish_seen_subcommand_from {word}" for word in command.words]
        if below:
            conditions.append(f"not __fish_seen_subcommand_from {' '.join(row.words[-1] for row in below)}")
        start = f"complete -c {program.name} -n {_quoted('; and '.join(conditions))}"
        lines += [f"{start} -f -a {row.words[-1]} -d {_quoted(row.summary)}" for row in below]
        lines += [f"{start} {_fish_option(action)} -d {_quoted(explain(action, command.parser))}"
                  for action in options_of(command.parser) if action.option_strings]
    return _join(lines)


def _fish_option(action: argparse.Action) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings]
    if action.choices:
        return f"{' '.join(names)} -x -a {_quoted(' '.join(map(str, action.choices)))}"
    return " ".join([*names, *(["-r"] if value_of(action) else [])])


def _descend(program: Program) -> Iterator[str]:
    """Lines of a loop over the words before the one that is completed: which command they have reached."""
    yield '        case "$at/$word" in'
    for command in program.commands[1:]:
        yield "    " + _case(f"{_at(command.words[:-1])}/{command.words[-1]}", f"at={_quoted(_at(command.words))}")
    yield "        esac"


def _join(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _case(pattern: str, action: str) -> str:
    return f"        {_quoted(pattern)}) {action} ;;"


def _at(words: Iterable[str]) -> str:
    return " ".join(words)


def _choices(program: Program) -> Iterator[tuple[str, str, list[str]]]:
    """Options whose values are a choice."""
    for command in program.commands:
        for action in options_of(command.parser):
            for name in action.option_strings if action.choices else ():
                yield _at(command.words), name, [str(value) for value in action.choices or ()]


def _described(program: Program, command: Command) -> list[tuple[str, str]]:
    """Commands, options, and values of a positional that is a choice."""
    rows = [(row.words[-1], row.summary) for row in program.below(command.words)]
    for action in options_of(command.parser):
        values = [] if action.option_strings else [str(value) for value in action.choices or ()]
        rows += [(name, explain(action, command.parser)) for name in (*action.option_strings, *values)]
    return list(dict(rows).items())


def _quoted(text: str) -> str:
    """As all three shells read it."""
    return "'" + text.replace("'", "'\\''") + "'"
