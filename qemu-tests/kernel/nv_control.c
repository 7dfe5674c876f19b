// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * /proc/nvidia-lab, the lab's door into the emulated driver; NVIDIA's has nothing like it. Reading gives one line per
 * GPU: who opened it first, how many opens, attaches and failures. Writing makes the driver speak:
 *   xid BDF NUMBER TEXT   |   sxid INDEX BDF NUMBER TEXT   |   line TEXT
 * or cuts a GPU, as NVML calls do: `mig BDF GI.CI GI.CI ...` are its compute instances from now on.
 */
#include "nv.h"

#include <linux/uaccess.h>

static int show(struct seq_file *out, void *unused)
{
	struct nv_gpu *gpu;

	mutex_lock(&nv_gpus_lock);
	list_for_each_entry(gpu, &nv_gpus, entry) {
		seq_printf(out, "%s minor=%d uuid=%s cc=%u users=%d initialised=%d opens=%d attaches=%d failures=%d first=%s\n",
			   pci_name(gpu->pdev), gpu->minor, gpu->uuid, nv_mailbox_read(gpu, LAB_CC), gpu->users, gpu->initialised,
			   gpu->opens, gpu->attaches, gpu->failures, *gpu->first ? gpu->first : "-");
	}
	mutex_unlock(&nv_gpus_lock);
	return 0;
}

static int read_instances(const char *words, u8 *compute)
{
	unsigned int gi, ci;
	int at = 0;

	for (; sscanf(words, " %u.%u%n", &gi, &ci, &at) == 2; words += at) {
		if (gi >= LAB_MIG_INSTANCES || ci >= LAB_MIG_COMPUTE)
			return -EINVAL;
		compute[gi] |= 1 << ci;
	}
	return *words ? -EINVAL : 0;
}

static int cut(const char *text)
{
	u8 compute[LAB_MIG_INSTANCES] = { 0 };
	struct nv_gpu *gpu;
	char bdf[32];
	int at = 0, rc = -ENODEV;

	if (sscanf(text, "mig %31s%n", bdf, &at) != 1 || read_instances(text + at, compute))
		return -EINVAL;
	mutex_lock(&nv_gpus_lock);
	list_for_each_entry(gpu, &nv_gpus, entry)
		if (!strcmp(pci_name(gpu->pdev), bdf)) {
			nv_caps_set(gpu, compute);
			rc = 0;
		}
	mutex_unlock(&nv_gpus_lock);
	return rc;
}

static int speak(const char *text)
{
	unsigned int domain, bus, slot, number, index;
	int at = 0;

	if (sscanf(text, "xid %x:%x:%x.%*x %u %n", &domain, &bus, &slot, &number, &at) == 4 && at)
		pr_err("NVRM: Xid (PCI:%04x:%02x:%02x): %u, %s\n", domain, bus, slot, number, text + at);
	else if (sscanf(text, "sxid %u %x:%x:%x.%*x %u %n", &index, &domain, &bus, &slot, &number, &at) == 5 && at)
		pr_err("nvidia-nvswitch%u: SXid (PCI:%04x:%02x:%02x.0): %05u, %s\n", index, domain, bus, slot, number, text + at);
	else if (!strncmp(text, "line ", 5))
		pr_err("NVRM: %s\n", text + 5);
	else
		return -EINVAL;
	return 0;
}

static ssize_t command(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	char text[512];
	int rc;

	if (size >= sizeof(text) || copy_from_user(text, from, size))
		return -EINVAL;
	text[size] = 0;
	strim(text);
	rc = strncmp(text, "mig ", 4) ? speak(text) : cut(text);
	return rc ?: size;
}

static int open_control(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static const struct proc_ops control_ops = {
	.proc_open = open_control, .proc_read = seq_read, .proc_lseek = seq_lseek,
	.proc_release = single_release, .proc_write = command,
};

int nv_control_init(void)
{
	return proc_create("nvidia-lab", 0666, NULL, &control_ops) ? 0 : -ENOMEM;
}

void nv_control_exit(void)
{
	remove_proc_entry("nvidia-lab", NULL);
}
