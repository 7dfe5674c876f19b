// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* An emulated nvidia-uvm.ko: its region, its load message and its dependency on nvidia.ko. */
#include <linux/cdev.h>
#include <linux/fs.h>
#include <linux/module.h>

#ifndef NV_VERSION
#define NV_VERSION "550.163.01"
#endif
#define MINORS 2	/* nvidia-uvm, nvidia-uvm-tools */

int nvUvmInterfaceRegisterUvmCallbacks(void *callbacks);

static int uvm_disable_hmm;
module_param(uvm_disable_hmm, int, 0444);

static dev_t first;
static struct cdev cdev;

static int uvm_open(struct inode *inode, struct file *file)
{
	return 0;
}

static const struct file_operations ops = { .owner = THIS_MODULE, .open = uvm_open };

static int __init uvm_init(void)
{
	int rc = nvUvmInterfaceRegisterUvmCallbacks(NULL);

	rc = rc ?: alloc_chrdev_region(&first, 0, MINORS, "nvidia-uvm");
	if (rc)
		return rc;
	cdev_init(&cdev, &ops);
	rc = cdev_add(&cdev, first, MINORS);
	if (rc)
		unregister_chrdev_region(first, MINORS);
	else
		pr_info("nvidia-uvm: Loaded the UVM driver, major device number %d.\n", MAJOR(first));
	return rc;
}

static void __exit uvm_exit(void)
{
	cdev_del(&cdev);
	unregister_chrdev_region(first, MINORS);
	pr_info("nvidia-uvm: Unloaded the UVM driver.\n");
}

module_init(uvm_init);
module_exit(uvm_exit);
MODULE_LICENSE("GPL");
MODULE_VERSION(NV_VERSION);
MODULE_DESCRIPTION("emulated NVIDIA unified memory driver, for tests");
