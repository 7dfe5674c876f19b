/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The emulated nvidia.ko, shared between its parts. */
#ifndef LAB_NV_H
#define LAB_NV_H

#include "lab_mailbox.h"

#include <linux/cdev.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/workqueue.h>

#ifndef NV_VERSION
#define NV_VERSION "550.163.01"
#endif
#define NV_ID "NVIDIA UNIX Open Kernel Module for " NV_ARCH "  " NV_VERSION "  Release Build  (emulated by nvrc-lab)"
#define NV_ARCH "x86_64"

#define NV_MAJOR	195
#define NV_GPUS_MAX	248	/* 254 under the same major is nvidia-modeset's, which nobody here loads */
#define NV_MINOR_CTL	255

/* pr_err with the driver's way of naming a GPU. */
#define nv_gpu_err(gpu, format, ...) \
	pr_err("NVRM: GPU %s: " format "\n", pci_name((gpu)->pdev), ##__VA_ARGS__)

struct nv_gpu {
	struct list_head entry;
	struct pci_dev *pdev;
	struct mutex lock;		/* users, initialised, and one attach at a time */
	int minor, mailbox, users;
	bool initialised, known, lost;	/* known: it was attached once, so UUID and BIOS version are on record */
	int opens, attaches, failures;
	char first[TASK_COMM_LEN];	/* who opened it first */
	char uuid[48];			/* identity as it was at probe: a GPU off the bus keeps its name */
	u8 model[LAB_MODEL_SIZE], vbios[LAB_VBIOS_SIZE];
	struct delayed_work watch;
	struct proc_dir_entry *proc;
};

/* A region under a name, with or without a node behind it. */
struct nv_region {
	dev_t first;
	unsigned int count;
	struct cdev cdev;
	bool live;
};

/*
 * The parts, each after those it calls: none calls one below it.
 *
 * nv_mailbox.c
 */
u32 nv_mailbox_read(const struct nv_gpu *gpu, int at);
void nv_mailbox_write(const struct nv_gpu *gpu, int at, u32 value);
void nv_mailbox_bytes(const struct nv_gpu *gpu, int at, u8 *into, int size);

/* nv_region.c */
int nv_region_add(struct nv_region *region, dev_t first, unsigned int count, const char *name,
		  const struct file_operations *ops);
void nv_region_remove(struct nv_region *region);
long nv_no_ioctl(struct file *file, unsigned int command, unsigned long argument);
extern const struct file_operations nv_silent_ops;	/* opens, and knows no ioctl */

/* nv_params.c */
extern int NVreg_ModifyDeviceFiles, NVreg_NvLinkDisable, NVreg_ImexChannelCount;
void nv_show_params(struct seq_file *out);
void nv_show_registry(struct seq_file *out);

/* nv_caps.c: minors, nodes and files of capabilities. */
int nv_caps_init(struct proc_dir_entry *nvidia);
void nv_caps_exit(void);
void nv_caps_add_gpu(struct nv_gpu *gpu);
void nv_caps_set(struct nv_gpu *gpu, const u8 *compute);
void nv_caps_remove_gpu(struct nv_gpu *gpu);
/* One capability file; `minor` is the number of its node below /dev/nvidia-caps. */
void nv_caps_file(const char *name, struct proc_dir_entry *folder, int minor, int mode);

/* nv_proc.c: /proc/driver/nvidia. */
int nv_proc_init(void);
void nv_proc_exit(void);
int nv_proc_add_gpu(struct nv_gpu *gpu);
void nv_proc_remove_gpu(struct nv_gpu *gpu);

/* nv_switch.c: NVLink core and NVSwitch. */
extern int nv_switches;
int nv_switch_init(void);
void nv_switch_exit(void);

/* nv_attach.c */
int nv_gpu_open(struct nv_gpu *gpu);
void nv_gpu_close(struct nv_gpu *gpu);
void nv_gpu_watch(struct work_struct *work);

/* nv_gpu.c */
extern struct list_head nv_gpus;
extern struct mutex nv_gpus_lock;
int nv_register_gpus(void);
void nv_unregister_gpus(void);
struct nv_gpu *nv_gpu_by_minor(int minor);

/* nv_control.c: /proc/nvidia-lab. */
int nv_control_init(void);
void nv_control_exit(void);

/* nv_devices.c */
int nv_devices_init(void);
void nv_devices_exit(void);

#endif
