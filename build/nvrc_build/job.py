# SPDX-License-Identifier: Apache-2.0
"""What one build works on, and what its stages have found so far. Both are values; nothing here does anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nvrc_build.declared.declared import AgentPolicy, Declarations, Image, Slice
from nvrc_build.declared.read import load
from nvrc_build.ground.cache import Cache
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress, silent
from nvrc_build.supply.apt import Package
from nvrc_build.supply.given import Given, check_given, parse_given
from nvrc_build.supply.supply import Supply
from nvrc_build.tree.tree import Tree

# 2025-01-01; every time stamp in an image. A build has no other clock.
EPOCH = 1735689600
ENGINE = Path(__file__).resolve().parent
CARRIED = ENGINE.parent / "nvrc_tree"  # what a wheel has of a checkout; pyproject.toml lists it


def find_checkout(engine: Path = ENGINE) -> Path:
    """The checkout that the factory lies in; of an installed factory, what the wheel carries of it."""
    checkout = engine.parents[1]
    return checkout if (checkout / "rootfs").is_dir() else engine.parent / CARRIED.name


CHECKOUT = find_checkout()


def default_out(checkout: Path = CHECKOUT) -> Path:
    """Where things are made: in the checkout, and by an installed factory in the working folder."""
    return checkout / "out" if checkout != CARRIED else Path("out").resolve()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    image: Image
    declared: Declarations
    supply: Supply
    checkout: Path
    agent: Given | None
    components: Given | None
    policy: AgentPolicy | Given

    @property
    def cache(self) -> Cache:
        return self.supply.cache

    @property
    def slices(self) -> tuple[Slice, ...]:
        return self.declared.slices_of(self.image)

    @property
    def files(self) -> Path:
        return self.checkout / "rootfs/files"

    def wants(self, product: str) -> bool:
        return any(take.package == product for row in self.slices for take in row.takes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Grows from stage to stage. `roots` maps a package or product to the folder it lies in."""

    packages: tuple[Package, ...] = ()
    roots: Mapping[str, Path] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)
    below: Tree | None = None
    findings: tuple[str, ...] = ()
    parameters: str = ""


def find_declarations(checkout: Path = CHECKOUT) -> Path:
    if not (checkout / "rootfs").is_dir():
        raise BuildError(f"there are no declarations in {checkout / 'rootfs'}",
                         "install the wheel anew, or run ./dev from a checkout")
    return checkout / "rootfs"


def open_supply(*, cache: Path, mirror: str | None = None, checkout: Path = CHECKOUT,
                progress: Progress = silent) -> Supply:
    rootfs = find_declarations(checkout)
    stages = Cache(cache.resolve(), waiting=lambda line: progress(line, 0, 0))
    return Supply(rootfs=rootfs, declared=load(rootfs), cache=stages, mirror=mirror, progress=progress)


def open_job(profile: str, *, cache: Path, agent: Path | str | None = None, components: Path | str | None = None,
             policy: Path | str | None = None, mirror: str | None = None, checkout: Path = CHECKOUT,
             progress: Progress = silent) -> Job:
    supply = open_supply(cache=cache, mirror=mirror, checkout=checkout, progress=progress)
    image = supply.declared.image(profile)
    if image.declared_only:
        raise BuildError(f"image {profile} is declared but cannot be built from this machine's archives",
                         image.declared_only)
    job = Job(image=image, declared=supply.declared, supply=supply, checkout=checkout,
              agent=_given("agent", agent), components=_given("components", components),
              policy=_policy(image, policy))
    if job.wants("@agent") and agent is None and not image.stand_in:
        raise BuildError(f"image {profile} needs a kata-agent", "give one with --agent PATH or URL#sha256=HEX")
    if job.wants("@components") and components is None:
        raise BuildError(f"image {profile} needs the confidential guest components",
                         "give them with --components: a folder or an archive, PATH or URL#sha256=HEX")
    if policy is not None and not job.wants("@agent-policy"):
        raise BuildError(f"image {profile} has no agent that a policy could bind", "leave --agent-policy out")
    return job


def _policy(image: Image, value: Path | str | None) -> AgentPolicy | Given:
    """What was asked for: the name of a policy, else a file; by default what the image declares."""
    if value is None:
        return image.agent_policy
    named = next((one for one in AgentPolicy if one.value == str(value)), None)
    if named is not None:
        return named
    try:
        given = parse_given("policy", str(value))
        check_given(given)
    except BuildError as wrong:
        names = ", ".join(one.value for one in AgentPolicy)
        raise BuildError(wrong.what, f"give a Rego file, PATH or URL#sha256=HEX, or one of {names}") from wrong
    return given


def _given(what: str, value: Path | str | None) -> Given | None:
    if value is None:
        return None
    given = parse_given(what, str(value))
    check_given(given)
    return given
