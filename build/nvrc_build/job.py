# SPDX-License-Identifier: Apache-2.0
"""What one build works on, and what its stages have found so far. Both are values; nothing here does anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nvrc_build.declared.declared import AgentPolicy, Declarations, Image, Layout, Slice
from nvrc_build.declared.read import load
from nvrc_build.ground.cache import Cache, digest
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress, silent
from nvrc_build.supply.apt import Package
from nvrc_build.supply.archives import Addresses
from nvrc_build.supply.given import Given, check_given, parse_given
from nvrc_build.supply.supply import Supply
from nvrc_build.tree.tree import Tree

DECLARED_IN = ("archives", "drivers", "files", "images", "keys", "locks", "roots", "slices")
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
class Brought:
    """What the caller brings beside what the checkout declares.

    `declarations`: a folder like rootfs/, whose files stand beside those there, or in their place. `kernel`: a folder
    laid out as products/given_kernel.py says. `driver_run`: NVIDIA's installer file.
    """

    declarations: Path | None = None
    addresses: Addresses = field(default_factory=Addresses)
    packages: tuple[str, ...] = ()
    kernel: Path | None = None
    driver_run: str | None = None


NOTHING = Brought()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    image: Image
    declared: Declarations
    supply: Supply
    checkout: Path
    agent: Given | None
    components: Given | None
    policy: AgentPolicy | Given
    # The owner's own for the kernel command line; None: what the slices bring, if they do.
    line_policy: Given | None = None
    kernel: Path | None = None
    driver_run: Given | None = None

    @property
    def cache(self) -> Cache:
        return self.supply.cache

    @property
    def slices(self) -> tuple[Slice, ...]:
        return self.declared.slices_of(self.image)

    @property
    def files(self) -> Path:
        return self.supply.rootfs / "files"

    def wants(self, product: str) -> bool:
        """Whether a slice takes from it, or the caller or the image names it otherwise."""
        driver = self.declared.driver(self.image.driver).package if self.image.driver else ""
        taken = any(take.package == product for row in self.slices for take in row.takes)
        return taken or product in (self.image.kernel, driver) or (
            product == "@policy" and self.line_policy is not None)


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
                         "install the wheel again, or run ./dev from a checkout")
    return checkout / "rootfs"


def open_supply(*, cache: Path, mirror: str | None = None, checkout: Path = CHECKOUT,
                progress: Progress = silent, limit_s: float | None = None, brought: Brought = NOTHING) -> Supply:
    """`limit_s`: how long to wait for another build that makes what this one needs; None: as long as that takes."""
    rootfs = find_declarations(checkout)
    stages = Cache(cache.resolve(), limit_s=limit_s)
    if brought.declarations is not None:
        rootfs = join_declarations(rootfs, brought.declarations, stages)
    return Supply(rootfs=rootfs, declared=load(rootfs), cache=stages, mirror=mirror, progress=progress,
                  addresses=brought.addresses, packages=brought.packages)


def join_declarations(rootfs: Path, own: Path, cache: Cache) -> Path:
    """One folder of the checkout's declarations and the caller's own, which win where both have a file."""
    if not own.is_dir():
        raise BuildError(f"declarations {own} are not a folder", "give one with images/, slices/ and so on, as rootfs/")
    found = {path.relative_to(folder): path for folder in (rootfs, own) for path in sorted(folder.rglob("*"))
             if path.is_file()}
    strange = sorted(str(path) for path in found if path.parts[0] not in DECLARED_IN)
    if strange:
        raise BuildError(f"declarations {own} have files that are never read",
                         f"keep to the folders {', '.join(DECLARED_IN)}",
                         findings=tuple(strange))

    def make(out: Path) -> None:
        for name, path in found.items():
            (out / name.parent).mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(path.read_bytes())

    key = digest(*(word for name, path in sorted(found.items()) for word in (str(name), path.read_bytes())))
    return cache.get("declarations", key, make)


def open_job(profile: str, *, cache: Path, agent: Path | str | None = None, components: Path | str | None = None,
             policy: Path | str | None = None, line_policy: Path | str | None = None, mirror: str | None = None,
             checkout: Path = CHECKOUT, progress: Progress = silent, limit_s: float | None = None,
             brought: Brought = NOTHING) -> Job:
    supply = open_supply(cache=cache, mirror=mirror, checkout=checkout, progress=progress, limit_s=limit_s,
                         brought=brought)
    image = supply.declared.image(profile)
    if image.declared_only:
        raise BuildError(f"image {profile} is declared but cannot be built from this machine's archives",
                         image.declared_only)
    job = Job(image=image, declared=supply.declared, supply=supply, checkout=checkout,
              agent=_given("agent", agent), components=_given("components", components),
              policy=_policy(image, policy), line_policy=_given("policy", line_policy),
              kernel=brought.kernel, driver_run=_given("driver", brought.driver_run))
    if job.wants("@agent") and agent is None and not image.stand_in:
        raise BuildError(f"image {profile} needs a kata-agent", "give one with --agent PATH or URL#sha256=HEX")
    if job.wants("@components") and components is None:
        raise BuildError(f"image {profile} needs the confidential guest components",
                         "give them with --components: a folder or an archive, PATH or URL#sha256=HEX")
    if line_policy is not None and image.layout is Layout.EXTENSION:
        raise BuildError(f"image {profile} is an extension, and no init reads a policy there",
                         "give --policy to the image that boots")
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
