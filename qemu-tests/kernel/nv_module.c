// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * An emulated nvidia.ko for tests: what an init, a CDI generator and a container can see of NVIDIA's module, and none
 * of its code. Order and messages follow the real one; the character devices come last, as there.
 */
#include "nv.h"

#include <linux/module.h>

static int __init nv_init(void)
{
	int rc = nv_switch_init();

	if (rc)
		return rc;
	rc = nv_proc_init();
	if (rc)
		goto no_proc;
	rc = nv_control_init();
	if (rc)
		goto no_control;
	rc = nv_register_gpus();
	if (rc)
		goto no_gpus;
	pr_err("NVRM: loading %s\n", NV_ID);
	rc = nv_devices_init();
	if (!rc)
		return 0;
	nv_unregister_gpus();
no_gpus:
	nv_control_exit();
no_control:
	nv_proc_exit();
no_proc:
	nv_switch_exit();
	return rc;
}

static void __exit nv_exit(void)
{
	nv_devices_exit();
	nv_unregister_gpus();
	nv_control_exit();
	nv_proc_exit();
	nv_switch_exit();
}

/* What nvidia-uvm.ko needs of this module; gives the dependency between the two that modprobe resolves. */
int nvUvmInterfaceRegisterUvmCallbacks(void *callbacks);
int nvUvmInterfaceRegisterUvmCallbacks(void *callbacks)
{
	return 0;
}
EXPORT_SYMBOL(nvUvmInterfaceRegisterUvmCallbacks);

module_init(nv_init);
module_exit(nv_exit);
MODULE_LICENSE("GPL");
MODULE_VERSION(NV_VERSION);
MODULE_DESCRIPTION("emulated NVIDIA driver, for tests");
MODULE_ALIAS_CHARDEV_MAJOR(NV_MAJOR);
