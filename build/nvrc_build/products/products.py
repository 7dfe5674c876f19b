# SPDX-License-Identifier: Apache-2.0
"""What the build makes itself: one maker per product that a slice can take from, named with '@'.

Every maker returns the folder of a finished cache entry, laid out as the files shall lie in the image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from nvrc.vocabulary.needs import NEEDS
from nvrc_build.declared.declared import AgentPolicy, Image, Layout, Signatures
from nvrc_build.ground.cache import digest, digest_files
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import watched
from nvrc_build.job import ENGINE, Job, Work
from nvrc_build.products import agent_policy, beside, components, driver_run, given_kernel, init, line_policy
from nvrc_build.products import kernel as kernels
from nvrc_build.products.driver import build_driver
from nvrc_build.supply import compile as compiler
from nvrc_build.supply import given, supply
from nvrc_build.supply.apt import file_sha256

FIRST, AWAIT = "usr/lib/nvrc/first", "usr/lib/nvrc/await"
Maker = Callable[[Job, Work], Path]


def _code(*names: str) -> str:
    return digest_files(tuple(ENGINE / name for name in names), ENGINE)


def kernel_root(work: Work) -> Path:
    if supply.GIVEN_KERNEL in work.roots:
        return work.roots[supply.GIVEN_KERNEL]
    found = [work.roots[row.name] for row in work.packages if supply.KERNEL_PACKAGE.fullmatch(row.name)]
    if len(found) != 1:
        raise BuildError(f"{len(found)} kernel packages in the lock", "run: nvrc-image lock")
    return found[0]


def make_modules(job: Job, work: Work) -> Path:
    """The kernel's own modules that the image names or that its needs do, with all they depend on."""
    root = kernel_root(work)
    driver = make_driver(job, work) if job.image.driver else None
    serves = job.image.serves if job.image.layout is Layout.ROOT else None
    names, where_there = modules_named(job.image)
    if kernels.read_config(root).get("CONFIG_MODULES") != "y":
        job.supply.progress("the kernel loads no modules; what the image's needs name must be built in", 0, 1)
        names, where_there = (), ()
    signatures, _ = choose_signatures(job.image, kernels.read_config(root))
    key = digest(root.name, repr((names, where_there, serves, signatures)), driver.name if driver else "",
                 _code("products/kernel.py"), _code("products/untraced.py"))

    def make(out: Path) -> None:
        extra = kernels.read_extra_modules(driver) if driver else ()
        chosen = (*kernels.select_modules(root, names, where_there), *extra)
        chosen = tuple(map(kernels.split_signature, chosen)) if signatures is Signatures.BESIDE else chosen
        kernels.write_modules(chosen, root, out / "usr/lib/modules" / kernels.find_release(root), serves)

    return job.cache.get("modules", key, make)


def modules_named(image: Image) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that the image must have, by name and by need, and those that some kernels do not have."""
    needs = [need for need in NEEDS if need.name in image.serves]
    return ((*image.modules, *(name for need in needs for name in need.modules)),
            tuple(name for need in needs for name in (*need.where_there, *need.elsewhere)))


def choose_signatures(image: Image, config: Mapping[str, str]) -> tuple[Signatures, str]:
    """Where the image's modules have their signatures, and why there."""
    if image.signatures_named is not None:
        return image.signatures_named, "the image's declaration says so"
    if config.get("CONFIG_MODULE_SIG") != "y":
        return Signatures.APPENDED, "this kernel checks none"
    if config.get("CONFIG_MODULE_SIG_FORCE") == "y":
        return Signatures.APPENDED, "this kernel loads no module without"
    return Signatures.BESIDE, ("this kernel requires none by itself, and what covers the kernel covers each file of "
                               "the image: launch measurement, dm-verity; told to require them, it is given them")


def describe_modules(job: Job, work: Work) -> dict[str, object]:
    """What a manifest says of the kernel's modules; {} for an image without."""
    if not job.image.kernel:
        return {}
    chosen, why = choose_signatures(job.image, kernels.read_config(kernel_root(work)))
    return {"signatures": chosen.value, "why": why}


def make_driver(job: Job, work: Work) -> Path:
    """The GPU driver's modules, compiled for the image's kernel and signed."""
    driver = job.declared.driver(job.image.driver)
    root = supply.root(job.supply, "compile")
    package, headers = work.roots[driver.package], _find_headers(job, work, root)
    code = _code("products/driver.py", "supply/extract.py", "supply/compile.py", "products/recipes/sign.mk")
    key = digest(repr(driver), package.name, root.name, kernel_root(work).name if headers else "", code)

    def make(out: Path) -> None:
        with watched([out / "source" / name for name in driver.modules], job.supply.progress):
            build_driver(driver, package, out, root=root, jobs=os.cpu_count() or 1, headers=headers)

    return job.cache.get("driver", key, make)


def _find_headers(job: Job, work: Work, root: Path) -> Path | None:
    """Those of a given kernel; None where the compile root has the kernel's own."""
    if job.kernel is not None and job.image.kernel == supply.GIVEN_KERNEL:
        headers = job.kernel / "headers"
        if not (headers / "Makefile").is_file():
            raise BuildError(f"kernel {job.kernel} has no headers/, and driver {job.image.driver} is compiled for it",
                             "put the tree there that `make modules_prepare` was run in, or a package's headers")
        return headers.resolve()
    release = kernels.find_release(kernel_root(work))
    if compiler.headers_release(root) != release:
        raise BuildError(f"kernel {release} and headers {compiler.headers_release(root)} are not of one release",
                         f"run: nvrc-image lock compile {job.image.name}")
    return None


def make_kernel(job: Job, _work: Work) -> Path:
    """The kernel that the caller brought."""
    if job.kernel is None:
        raise BuildError(f"image {job.image.name} needs a kernel of yours", "give one with --kernel FOLDER")
    source = job.kernel
    key = digest(given_kernel.check(source), *(file_sha256(source / name) for name in ("vmlinuz", "config")),
                 given.identify(source / "modules") if (source / "modules").is_dir() else "",
                 _code("products/given_kernel.py"))
    return job.cache.get("kernel", key, lambda out: given_kernel.arrange(source, out))


def make_driver_run(job: Job, _work: Work) -> Path:
    """NVIDIA's installer as a package."""
    if job.driver_run is None or not job.driver_run.sha256:
        raise BuildError(f"image {job.image.name} needs NVIDIA's installer",
                         "give it with --driver-run PATH#sha256=HEX or URL#sha256=HEX")
    file = given.open_given(job.driver_run, job.cache, job.supply.progress)
    key = digest(job.driver_run.sha256, _code("products/driver_run.py", "supply/extract.py", "tree/elf.py"))
    return job.cache.get("nvidia-run", key, lambda out: driver_run.arrange(file, out))


_REMEDY = ("boot a kernel built with signing.x509; or, where a machine has a variable store of its own, put it into "
           "the firmware's db: nvrc-image enrol")


def module_trust(config: Mapping[str, str]) -> dict[str, object]:
    """What the image's kernel makes of modules that this build signed: the key is younger than the kernel."""
    if config.get("CONFIG_MODULE_SIG_FORCE") == "y":
        raise BuildError("the image's kernel loads only modules signed by its own keys, and the driver's are not",
                         "use a kernel without CONFIG_MODULE_SIG_FORCE, or modules signed where the kernel is built")
    takes = all(config.get(f"CONFIG_{name}") == "y" for name in ("INTEGRITY_PLATFORM_KEYRING", "LOAD_UEFI_KEYS"))
    refused = "these modules are refused"
    return {"enforced_by_this_kernel": False, "key_carried_by_this_kernel": False, "takes_keys_from_firmware": takes,
            "with_module_sig_enforce": f"{refused} unless the firmware's db has signing.x509" if takes else refused,
            "remedy": _REMEDY}


def copy_signing(job: Job, work: Work, out: Path) -> dict[str, object] | None:
    """The certificate and the digests before signing go beside an image that has modules of this build."""
    if not job.image.driver:
        return None
    driver = make_driver(job, work)
    for name in ("signing.x509", "unsigned.sha256"):
        shutil.copyfile(driver / name, out / name)
    return {"modules": sorted(path.name for path in driver.glob("*.ko")),
            "certificate_sha256": file_sha256(driver / "signing.x509"),
            **module_trust(kernels.read_config(kernel_root(work)))}


def make_beside(job: Job, work: Work) -> Path:
    tools, site, frozen = supply.root(job.supply, "tools"), init.make_site(job), init.make_init(job, work)
    key = digest(frozen.name, _code("products/beside.py", "products/recipes/lay_beside.py"))

    def make(out: Path) -> None:
        beside.lay(job.checkout, root=tools, site=site, init=frozen, out=out)

    return job.cache.get("beside", key, make)


def make_first(job: Job, _work: Work) -> Path:
    """The programs without libc: which /init leads to, so that no word of the line reaches a loader, and await."""
    folder, root = job.checkout / "nvrc", supply.root(job.supply, "compile")
    key = digest(digest_files(tuple(sorted(folder.glob("*.[ch]"))), folder), root.name, _code("supply/compile.py"))

    def make(out: Path) -> None:
        (out / FIRST).parent.mkdir(parents=True)
        for path in (FIRST, AWAIT):
            compiler.compile_freestanding(folder / f"{Path(path).name}.c", out, root=root).rename(out / path)

    return job.cache.get("first", key, make)


def make_agent(job: Job, _work: Work) -> Path:
    """The given agent, or the stand-in of the lab, compiled in the pinned root."""
    if job.agent is not None:
        file = given.open_given(job.agent, job.cache, job.supply.progress)
        if not file.is_file():
            raise BuildError(f"agent {file} is not a file", "give --agent the kata-agent program itself")
        return job.cache.get("agent", found := file_sha256(file), lambda out: _install_agent(file, out, found))
    folder = job.checkout / "qemu-tests/standins"
    sources = compiler.program_sources(folder, "agent")
    if not sources[0].is_file():
        raise BuildError(f"image {job.image.name} needs a kata-agent", "give one with --agent PATH")
    root = supply.root(job.supply, "compile")
    key = digest(digest_files((*sources, *sorted(folder.glob("*.h"))), folder), root.name, _code("supply/compile.py"))

    def make(out: Path) -> None:
        program = compiler.compile_static(sources, out, root=root)
        _install_agent(program, out, file_sha256(program))
        program.unlink()

    return job.cache.get("agent", key, make)


def _install_agent(program: Path, out: Path, sha256: str) -> None:
    target = out / "usr/bin/kata-agent"
    target.parent.mkdir(parents=True)
    shutil.copyfile(program, target)
    given.check_unchanged("agent", target, sha256)
    target.chmod(0o755)


def make_agent_policy(job: Job, work: Work) -> Path:
    """The policies that the image carries, with a rule for each request of its agent; the stand-in's agent has none."""
    agent = (make_agent(job, work) / agent_policy.AGENT.lstrip("/")).read_bytes() if job.agent is not None else b""
    name, choice = _policy(job)
    for note in agent_policy.check(name, choice, agent):
        job.supply.progress(note, 0, 1)
    key = digest(hashlib.sha256(choice).hexdigest() if isinstance(choice, bytes) else choice.value,
                 hashlib.sha256(agent).hexdigest(), _code("products/agent_policy.py", "products/descriptor.py"))
    return job.cache.get("agent-policy", key, lambda out: agent_policy.write(out, choice, agent))


def _policy(job: Job) -> tuple[str, AgentPolicy | bytes]:
    """The policy that holds, or its text, and what to call it in messages."""
    if isinstance(job.policy, AgentPolicy):
        return job.policy.value, job.policy
    name = str(job.policy.path or job.policy.url)
    file = given.open_given(job.policy, job.cache, job.supply.progress)
    if not file.is_file():
        raise BuildError(f"policy {name} is not a file", "give --agent-policy a Rego file")
    return name, file.read_bytes()


def make_line_policy(job: Job, _work: Work) -> Path:
    """The owner's policy for the kernel command line, read by the init's parser."""
    if job.line_policy is None:
        raise BuildError(f"image {job.image.name} needs a policy that was not given", "give one with --policy FILE")
    name = str(job.line_policy.path or job.line_policy.url)
    data = line_policy.check_given(name, given.open_given(job.line_policy, job.cache, job.supply.progress))

    def make(out: Path) -> None:
        target = out / line_policy.PLACE
        target.parent.mkdir(parents=True)
        target.write_bytes(data)

    return job.cache.get("policy", hashlib.sha256(data).hexdigest(), make)


def make_components(job: Job, _work: Work) -> Path:
    """Confidential guest components as they were given, laid out as in the image."""
    if job.components is None:
        raise BuildError(f"image {job.image.name} needs the confidential guest components", "give --components")
    source = given.open_given(job.components, job.cache, job.supply.progress)
    found = given.identify(source)
    key = digest(found, _code("supply/given.py", "supply/extract.py", "products/components.py"))

    def make(out: Path) -> None:
        given.unpack("components", source, out, found)
        components.arrange(out)
        components.check(out)

    return job.cache.get("components", key, make)


GIVEN: Mapping[str, Maker] = {supply.GIVEN_KERNEL: make_kernel, "@nvidia-run": make_driver_run}
MODULES: Mapping[str, Maker] = {"@modules": make_modules}
PROGRAMS: Mapping[str, Maker] = {"@nvrc": init.make_init, "@nvrc-metrics": make_beside, "@first": make_first,
                                 "@agent": make_agent, "@agent-policy": make_agent_policy,
                                 "@components": make_components, line_policy.PRODUCT: make_line_policy}
