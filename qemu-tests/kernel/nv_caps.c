// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Capabilities: the static table of minors below /proc/driver/nvidia-caps, the files that exist below
 * /proc/driver/nvidia/capabilities, and the character regions. Numbers are given in table order: fabric-mgmt,
 * config, monitor, then GPU by GPU each GPU instance with its compute instances, then fabric-imex-mgmt.
 */
#include "nv.h"

#define GPUS		32
#define PER_INSTANCE	(1 + LAB_MIG_COMPUTE)
#define MINOR_FABRIC	0
#define MINOR_CONFIG	1
#define MINOR_MONITOR	2
#define MINOR_MIG	3
#define MINOR_IMEX	(MINOR_MIG + GPUS * LAB_MIG_INSTANCES * PER_INSTANCE)

static struct nv_region caps_region, imex_region;
static struct proc_dir_entry *tables, *capabilities;

struct cap {
	int minor, mode;
};

static int instance_minor(int gpu, int gi)
{
	return MINOR_MIG + (gpu * LAB_MIG_INSTANCES + gi) * PER_INSTANCE;
}

static int show_mig_minors(struct seq_file *out, void *unused)
{
	int gpu, gi, ci;

	seq_printf(out, "config %d\nmonitor %d\n", MINOR_CONFIG, MINOR_MONITOR);
	for (gpu = 0; gpu < GPUS; gpu++)
		for (gi = 0; gi < LAB_MIG_INSTANCES; gi++) {
			seq_printf(out, "gpu%d/gi%d/access %d\n", gpu, gi, instance_minor(gpu, gi));
			for (ci = 0; ci < LAB_MIG_COMPUTE; ci++)
				seq_printf(out, "gpu%d/gi%d/ci%d/access %d\n", gpu, gi, ci, instance_minor(gpu, gi) + 1 + ci);
		}
	return 0;
}

static int show_nvlink_minors(struct seq_file *out, void *unused)
{
	seq_printf(out, "fabric-mgmt %d\n", MINOR_FABRIC);
	return 0;
}

static int show_sys_minors(struct seq_file *out, void *unused)
{
	seq_printf(out, "fabric-imex-mgmt %d\n", MINOR_IMEX);
	return 0;
}

/* Minor and mode fit into the pointer that a procfs file carries: nothing to free. */
static int show_cap(struct seq_file *out, void *unused)
{
	unsigned long value = (unsigned long)out->private;

	seq_printf(out, "DeviceFileMinor: %lu\nDeviceFileMode: %lu\nDeviceFileModify: %d\n", value >> 16, value & 0xffff,
		   NVreg_ModifyDeviceFiles);
	return 0;
}

void nv_caps_file(const char *name, struct proc_dir_entry *folder, int minor, int mode)
{
	proc_create_single_data(name, mode, folder, show_cap, (void *)((unsigned long)minor << 16 | mode));
}

static void add_instance(struct proc_dir_entry *mig, int gpu, int gi, u8 compute)
{
	struct proc_dir_entry *folder;
	char name[16];
	int ci;

	snprintf(name, sizeof(name), "gi%d", gi);
	mig = proc_mkdir(name, mig);
	nv_caps_file("access", mig, instance_minor(gpu, gi), 0444);
	for (ci = 0; ci < LAB_MIG_COMPUTE; ci++) {
		if (!(compute & 1 << ci))
			continue;
		snprintf(name, sizeof(name), "ci%d", ci);
		folder = proc_mkdir(name, mig);
		nv_caps_file("access", folder, instance_minor(gpu, gi) + 1 + ci, 0444);
	}
}

/* Instead of the instances there were: their compute instances as bits, as in the mailbox. */
void nv_caps_set(struct nv_gpu *gpu, const u8 *compute)
{
	struct proc_dir_entry *folder;
	char name[16];
	int gi;

	nv_caps_remove_gpu(gpu);
	if (!memchr_inv(compute, 0, LAB_MIG_INSTANCES))
		return;	/* a GPU without instances has no folder */
	snprintf(name, sizeof(name), "gpu%d", gpu->minor);
	folder = proc_mkdir(name, capabilities);
	folder = proc_mkdir("mig", folder);
	for (gi = 0; gi < LAB_MIG_INSTANCES; gi++)
		if (compute[gi])
			add_instance(folder, gpu->minor, gi, compute[gi]);
}

void nv_caps_add_gpu(struct nv_gpu *gpu)
{
	u8 compute[LAB_MIG_INSTANCES];

	nv_mailbox_bytes(gpu, LAB_MIG, compute, sizeof(compute));
	nv_caps_set(gpu, compute);
}

void nv_caps_remove_gpu(struct nv_gpu *gpu)
{
	char name[16];

	snprintf(name, sizeof(name), "gpu%d", gpu->minor);
	remove_proc_subtree(name, capabilities);
}

int nv_caps_init(struct proc_dir_entry *nvidia)
{
	struct proc_dir_entry *mig;
	int rc;

	capabilities = proc_mkdir("capabilities", nvidia);
	mig = proc_mkdir("mig", capabilities);
	nv_caps_file("config", mig, MINOR_CONFIG, 0400);
	nv_caps_file("monitor", mig, MINOR_MONITOR, 0444);
	nv_caps_file("fabric-imex-mgmt", capabilities, MINOR_IMEX, 0400);
	tables = proc_mkdir("driver/nvidia-caps", NULL);
	proc_create_single_data("mig-minors", 0444, tables, show_mig_minors, NULL);
	proc_create_single_data("nvlink-minors", 0444, tables, show_nvlink_minors, NULL);
	proc_create_single_data("sys-minors", 0444, tables, show_sys_minors, NULL);
	rc = nv_region_add(&caps_region, 0, MINOR_IMEX + 1, "nvidia-caps", &nv_silent_ops);
	if (!rc && NVreg_ImexChannelCount > 0)
		rc = nv_region_add(&imex_region, 0, NVreg_ImexChannelCount, "nvidia-caps-imex-channels", &nv_silent_ops);
	return rc;
}

void nv_caps_exit(void)
{
	nv_region_remove(&imex_region);
	nv_region_remove(&caps_region);
	proc_remove(tables);
	proc_remove(capabilities);
}
