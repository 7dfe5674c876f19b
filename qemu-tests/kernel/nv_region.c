// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Character regions under a name. None has a class, so devtmpfs makes no node; user space does. */
#include "nv.h"

#include <linux/fs.h>
#include <linux/module.h>

int nv_region_add(struct nv_region *region, dev_t first, unsigned int count, const char *name,
		  const struct file_operations *ops)
{
	int rc = MAJOR(first) ? register_chrdev_region(first, count, name)
			      : alloc_chrdev_region(&first, MINOR(first), count, name);

	if (rc) {
		pr_err("NVRM: register_chrdev_region() failed for %s!\n", name);
		return rc;
	}
	region->first = first;
	region->count = count;
	cdev_init(&region->cdev, ops);
	region->cdev.owner = THIS_MODULE;
	rc = cdev_add(&region->cdev, first, count);
	region->live = !rc;
	if (rc)
		unregister_chrdev_region(first, count);
	return rc;
}

void nv_region_remove(struct nv_region *region)
{
	if (!region->live)
		return;
	cdev_del(&region->cdev);
	unregister_chrdev_region(region->first, region->count);
	region->live = false;
}

static int silent_open(struct inode *inode, struct file *file)
{
	return 0;
}

long nv_no_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	pr_err("NVRM: unknown NVRM ioctl command: 0x%x\n", _IOC_NR(command));
	return -EINVAL;
}

const struct file_operations nv_silent_ops = { .owner = THIS_MODULE, .open = silent_open, .unlocked_ioctl = nv_no_ioctl };
