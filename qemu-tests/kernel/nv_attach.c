// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The attach that the first open of a GPU's node costs. How long it takes and how it ends stands in the function's
 * mailbox. With confidential computing on, a GPU can be initialised once per function-level reset: a second attach
 * after the last close fails until then, and so does an attach after one that was killed half-way.
 */
#include "nv.h"

#include <linux/sched/signal.h>

#define WATCH_MS	200
#define FAILED_STATUS	884	/* last number of the line when the scenario gives none */

/* The real driver initialises one GPU at a time, whoever asks: eight opens at once take as long as one after another. */
static DEFINE_MUTEX(attach_lock);

static void report_failure(struct nv_gpu *gpu, unsigned int code, unsigned int status)
{
	pr_err("NVRM: osInitNvMapping: *** Cannot attach gpu\n");
	pr_err("NVRM: RmInitAdapter: osInitNvMapping failed, bailing out of RmInitAdapter\n");
	nv_gpu_err(gpu, "RmInitAdapter failed! (0x22:0x%x:%u)", code, status);
	nv_gpu_err(gpu, "rm_init_adapter failed, device minor number %d", gpu->minor);
}

static bool is_lost(struct nv_gpu *gpu)
{
	u16 vendor = 0;

	pci_read_config_word(gpu->pdev, PCI_VENDOR_ID, &vendor);
	return vendor == 0xffff;
}

static void report_loss(struct nv_gpu *gpu)
{
	if (!gpu->lost) {
		pr_err("NVRM: Xid (PCI:%04x:%02x:%02x): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n",
		       pci_domain_nr(gpu->pdev->bus), gpu->pdev->bus->number, PCI_SLOT(gpu->pdev->devfn));
		nv_gpu_err(gpu, "GPU has fallen off the bus.");
	}
	gpu->lost = true;
}

static int fail(struct nv_gpu *gpu, unsigned int code)
{
	u32 status = nv_mailbox_read(gpu, LAB_STATUS);

	report_failure(gpu, code, status && status != ~0u ? status : FAILED_STATUS);
	return -EIO;
}

/* Time passes in the kernel, killable, as during the real initialisation. */
static int spend(struct nv_gpu *gpu)
{
	unsigned long until = jiffies + msecs_to_jiffies(nv_mailbox_read(gpu, LAB_ATTACH_MS));

	while (time_before(jiffies, until) || nv_mailbox_read(gpu, LAB_FAULTS) & LAB_FAULT_HANG) {
		schedule_timeout_killable(clamp_t(long, until - jiffies, 1, HZ / 20));
		if (fatal_signal_pending(current)) {
			nv_gpu_err(gpu, "attach interrupted by the end of %s", current->comm);
			return -EINTR;
		}
		if (is_lost(gpu))
			break;
	}
	return 0;
}

/* An attach that may be tried only once, and its traces: the state bit lives in the device. */
static int attach(struct nv_gpu *gpu)
{
	u32 state = nv_mailbox_read(gpu, LAB_STATE), faults = nv_mailbox_read(gpu, LAB_FAULTS);
	u32 mode = nv_mailbox_read(gpu, LAB_CC);
	int rc;

	if (is_lost(gpu)) {
		report_loss(gpu);
		return fail(gpu, 0xf);
	}
	if (mode != LAB_CC_OFF && state & LAB_STATE_ATTACHED) {
		pr_err("NVRM: gpumgrCheckRmFirmwarePolicy: Disabling GSP offload -- GPU not supported\n");
		return fail(gpu, 0x56);
	}
	nv_mailbox_write(gpu, LAB_STATE, state | LAB_STATE_ATTACHED);
	rc = spend(gpu);
	if (rc)
		return rc;
	if (is_lost(gpu)) {
		report_loss(gpu);
		return fail(gpu, 0xf);
	}
	if (faults & LAB_FAULT_ATTACH || (faults & LAB_FAULT_NVLINK && !NVreg_NvLinkDisable))
		return fail(gpu, 0x56);
	return 0;
}

void nv_gpu_watch(struct work_struct *work)
{
	struct nv_gpu *gpu = container_of(to_delayed_work(work), struct nv_gpu, watch);

	if (is_lost(gpu))
		report_loss(gpu);
	else
		schedule_delayed_work(&gpu->watch, msecs_to_jiffies(WATCH_MS));
}

static int attach_first_user(struct nv_gpu *gpu)
{
	int rc = mutex_lock_killable(&attach_lock);

	if (rc)
		return rc;
	rc = attach(gpu);
	mutex_unlock(&attach_lock);
	if (rc) {
		gpu->failures++;
		return rc;
	}
	gpu->attaches++;
	gpu->initialised = gpu->known = true;
	schedule_delayed_work(&gpu->watch, msecs_to_jiffies(WATCH_MS));
	return 0;
}

int nv_gpu_open(struct nv_gpu *gpu)
{
	int rc = mutex_lock_killable(&gpu->lock);

	if (rc)
		return rc;
	if (!gpu->opens++)
		get_task_comm(gpu->first, current);
	if (!gpu->initialised)
		rc = attach_first_user(gpu);
	else if (gpu->lost)
		rc = -EIO;
	if (!rc)
		gpu->users++;
	mutex_unlock(&gpu->lock);
	return rc;
}

void nv_gpu_close(struct nv_gpu *gpu)
{
	mutex_lock(&gpu->lock);
	if (!--gpu->users) {
		gpu->initialised = false;
		cancel_delayed_work_sync(&gpu->watch);
	}
	mutex_unlock(&gpu->lock);
}
