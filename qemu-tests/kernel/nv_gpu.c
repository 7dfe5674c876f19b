// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* GPUs: the driver that binds them, and their identity. */
#include "nv.h"

#include <linux/module.h>
#include <linux/slab.h>

LIST_HEAD(nv_gpus);
DEFINE_MUTEX(nv_gpus_lock);

static void read_identity(struct nv_gpu *gpu)
{
	u8 uuid[16];

	nv_mailbox_bytes(gpu, LAB_UUID, uuid, sizeof(uuid));
	snprintf(gpu->uuid, sizeof(gpu->uuid), "GPU-%pUb", uuid);
	nv_mailbox_bytes(gpu, LAB_MODEL, gpu->model, LAB_MODEL_SIZE - 1);
	nv_mailbox_bytes(gpu, LAB_VBIOS, gpu->vbios, LAB_VBIOS_SIZE - 1);
}

struct nv_gpu *nv_gpu_by_minor(int minor)
{
	struct nv_gpu *gpu, *found = NULL;

	mutex_lock(&nv_gpus_lock);
	list_for_each_entry(gpu, &nv_gpus, entry)
		if (gpu->minor == minor)
			found = gpu;
	mutex_unlock(&nv_gpus_lock);
	return found;
}

/* The wanted minor, or the lowest free one. */
static int choose_minor(u32 wanted)
{
	struct nv_gpu *gpu;
	int minor = wanted == LAB_MINOR_NEXT ? 0 : wanted;

again:
	list_for_each_entry(gpu, &nv_gpus, entry)
		if (gpu->minor == minor) {
			minor++;
			goto again;
		}
	return minor < NV_GPUS_MAX ? minor : -ENOSPC;
}

static int refuse(struct pci_dev *pdev)
{
	pr_err("NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\n");
	pr_err("NVRM: BAR0 is 0M @ 0x0 (PCI:%s)\n", pci_name(pdev));
	return -ENODEV;
}

static void publish(struct nv_gpu *gpu)
{
	mutex_lock(&nv_gpus_lock);
	gpu->minor = choose_minor(nv_mailbox_read(gpu, LAB_MINOR));
	list_add_tail(&gpu->entry, &nv_gpus);
	mutex_unlock(&nv_gpus_lock);
	nv_proc_add_gpu(gpu);
	nv_caps_add_gpu(gpu);
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nv_gpu *gpu = kzalloc(sizeof(*gpu), GFP_KERNEL);
	int rc;

	if (!gpu)
		return -ENOMEM;
	gpu->pdev = pdev;
	gpu->mailbox = pci_find_vsec_capability(pdev, PCI_VENDOR_ID_NVIDIA, LAB_VSEC_ID);
	mutex_init(&gpu->lock);
	INIT_DELAYED_WORK(&gpu->watch, nv_gpu_watch);
	if (!pci_resource_len(pdev, 0) || nv_mailbox_read(gpu, LAB_FAULTS) & LAB_FAULT_PROBE)
		rc = refuse(pdev);
	else
		rc = pci_enable_device(pdev);
	if (rc) {
		kfree(gpu);
		return rc;
	}
	pci_set_master(pdev);
	pci_set_drvdata(pdev, gpu);
	read_identity(gpu);
	publish(gpu);
	return 0;
}

static void remove(struct pci_dev *pdev)
{
	struct nv_gpu *gpu = pci_get_drvdata(pdev);

	cancel_delayed_work_sync(&gpu->watch);
	nv_caps_remove_gpu(gpu);
	nv_proc_remove_gpu(gpu);
	mutex_lock(&nv_gpus_lock);
	list_del(&gpu->entry);
	mutex_unlock(&nv_gpus_lock);
	pci_disable_device(pdev);
	kfree(gpu);
}

static const struct pci_device_id nv_gpu_ids[] = {
	{ .vendor = PCI_VENDOR_ID_NVIDIA, .device = PCI_ANY_ID, .subvendor = PCI_ANY_ID, .subdevice = PCI_ANY_ID,
	  .class = PCI_CLASS_DISPLAY_VGA << 8, .class_mask = ~0 },
	{ .vendor = PCI_VENDOR_ID_NVIDIA, .device = PCI_ANY_ID, .subvendor = PCI_ANY_ID, .subdevice = PCI_ANY_ID,
	  .class = PCI_CLASS_DISPLAY_3D << 8, .class_mask = ~0 },
	{}
};
MODULE_DEVICE_TABLE(pci, nv_gpu_ids);

static struct pci_driver driver = { .name = "nvidia", .id_table = nv_gpu_ids, .probe = probe, .remove = remove };

static int count_present(void)
{
	struct pci_dev *pdev = NULL;
	int count = 0;

	for_each_pci_dev(pdev)
		count += pci_match_id(nv_gpu_ids, pdev) != NULL;
	return count;
}

int nv_register_gpus(void)
{
	int present = count_present(), bound = 0, rc;
	struct nv_gpu *gpu;

	if (!present && !nv_switches) {
		pr_err("NVRM: No NVIDIA GPU found.\n");
		return -ENODEV;
	}
	rc = pci_register_driver(&driver);
	if (rc)
		return rc;
	list_for_each_entry(gpu, &nv_gpus, entry)
		bound++;
	if (bound != present)
		pr_err("NVRM: The NVIDIA probe routine failed for %d device(s).\n", present - bound);
	if (bound || nv_switches)
		return 0;
	pr_err("NVRM: None of the NVIDIA devices were initialized.\n");
	pci_unregister_driver(&driver);
	return -ENODEV;
}

void nv_unregister_gpus(void)
{
	pci_unregister_driver(&driver);
}
