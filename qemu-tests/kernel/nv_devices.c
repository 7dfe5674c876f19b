// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The nodes of the GPUs and of the driver itself: the first open of a GPU's attaches it. */
#include "nv.h"

#include <linux/fs.h>
#include <linux/module.h>

static int device_open(struct inode *inode, struct file *file)
{
	struct nv_gpu *gpu = nv_gpu_by_minor(iminor(inode));
	int rc = gpu ? nv_gpu_open(gpu) : -ENODEV;

	if (!rc)
		file->private_data = gpu;
	return rc;
}

static int device_release(struct inode *inode, struct file *file)
{
	nv_gpu_close(file->private_data);
	return 0;
}

static const struct file_operations device_ops = {
	.owner = THIS_MODULE, .open = device_open, .release = device_release, .unlocked_ioctl = nv_no_ioctl,
};

static struct nv_region gpus, control;

int nv_devices_init(void)
{
	int rc = nv_region_add(&gpus, MKDEV(NV_MAJOR, 0), NV_GPUS_MAX, "nvidia", &device_ops);

	rc = rc ?: nv_region_add(&control, MKDEV(NV_MAJOR, NV_MINOR_CTL), 1, "nvidiactl", &nv_silent_ops);
	if (rc)
		nv_devices_exit();
	return rc;
}

void nv_devices_exit(void)
{
	nv_region_remove(&control);
	nv_region_remove(&gpus);
}
