# SPDX-License-Identifier: Apache-2.0
"""The modules that decide, and the tests that must notice when one of them decides otherwise.

A row is a module and the tests whose subject it is: no more than that, since every mutant runs them until one fails.
What a module only looks up (words of messages, the kernel's names and numbers) is no decision: `tables` names the
module-level names whose value is left alone. `apart`: the tests are those of the namespace tier, and a mutant may do to
the machine what the module only does in namespaces; each gets namespaces of its own, which takes root.
"""

from __future__ import annotations

from dataclasses import dataclass

BAR_PERCENT = 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    module: str
    tests: tuple[str, ...]
    tables: tuple[str, ...] = ()
    apart: bool = False

    @property
    def name(self) -> str:
        return self.module.removeprefix("build/").removesuffix(".py").replace("/", ".")


def row(module: str, *tests: str, tables: tuple[str, ...] = (), apart: bool = False) -> Row:
    return Row(module=module, tests=tuple(f"tests/{test}" for test in tests), tables=tables, apart=apart)


ROWS = (
    row("nvrc/params/values.py", "nvrc/params/test_params_values.py", "nvrc/params/test_params_parse.py"),
    row("nvrc/params/parse.py", "nvrc/params/test_params_parse.py", "nvrc/params/test_policy.py",
        "nvrc/params/test_initdata.py"),
    row("nvrc/params/cmdline.py", "nvrc/params/test_params_tokens.py", "nvrc/params/test_params_parse.py"),
    row("nvrc/params/extension.py", "nvrc/params/test_params_values.py"),
    row("nvrc/params/policy.py", "nvrc/params/test_policy.py", "nvrc/params/test_initdata.py"),
    row("nvrc/params/words.py", "nvrc/params/test_words.py"),
    row("nvrc/params/claims.py", "nvrc/params/test_topology_claims.py"),
    row("nvrc/hardware/topology.py", "nvrc/hardware/test_topology.py", tables=("PRODUCTS",)),
    row("nvrc/hardware/modules.py", "nvrc/hardware/test_modules.py"),
    row("nvrc/hardware/needs.py", "nvrc/hardware/test_needs.py"),
    row("nvrc/hardware/nccl.py", "nvrc/hardware/test_links.py"),
    row("nvrc/services/ledger.py", "nvrc/services/test_persistence.py"),
    row("nvrc/nvml/count.py", "nvrc/nvml/test_nvml_boot.py"),
    row("nvrc/nvml/identity.py", "nvrc/nvml/test_gpu_identity.py"),
    row("nvrc/nvml/judge.py", "nvrc/nvml/test_nvml_confidential.py", tables=("_CPUS",)),
    row("nvrc/nvml/confidential.py", "nvrc/nvml/test_nvml_confidential.py"),
    row("nvrc/nvml/readiness.py", "nvrc/nvml/test_nvml_confidential.py", "nvrc/nvml/test_gpu_identity.py"),
    row("nvrc/nvml/ready.py", "nvrc/nvml/test_nvml_confidential.py", "nvrc/nvml/test_key_rotation.py"),
    row("nvrc/steps/ready_state.py", "nvrc/nvml/test_nvml_confidential.py", "nvrc/nvml/test_key_rotation.py",
        "nvrc/nvml/test_gpu_identity.py", "nvrc/confidential/test_attest.py"),
    row("nvrc/engine/executor.py", "nvrc/engine/test_executor.py"),
    row("nvrc/engine/ledger.py", "nvrc/engine/test_gpu_ledger.py"),
    row("nvrc/pid1/supervise.py", "nvrc/pid1/test_supervise.py"),
    row("nvrc/pid1/health.py", "nvrc/pid1/test_health.py", tables=("FAULTS",)),
    row("nvrc/extensions/verity.py", "nvrc/extensions/test_verity.py"),
    row("nvrc/extensions/disks.py", "nvrc/extensions/test_extension_disks.py"),
    row("guest_cdi/hooks/root.py", "guest_cdi/test_hook_root.py", "guest_cdi/test_hook_attacks.py"),
    row("guest_cdi/hooks/confine.py", "guest_cdi/test_hook_ldcache.py", "namespace/test_hooks_ldcache.py",
        "namespace/test_hooks_escape.py", apart=True),
    row("build/nvrc_build/tree/tree.py", "image/tree/test_tree_and_cpio.py"),
    row("build/nvrc_build/output/verity.py", "image/output/test_verity_and_disk.py"),
)
