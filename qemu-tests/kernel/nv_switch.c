// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* NVLink core and NVSwitch: regions, procfs trees and the driver that binds bridges of class 0680. */
#include "nv.h"

#include <linux/module.h>
#include <linux/slab.h>

#define MINOR_SWITCH_CTL	255

int nv_switches;

static struct nv_region switch_region, link_region;
static struct proc_dir_entry *switch_tree, *devices, *link_tree;

static int show_permissions(struct seq_file *out, void *unused)
{
	seq_puts(out, "DeviceFileMode: 438\n");
	return 0;
}

static int show_switch(struct seq_file *out, void *unused)
{
	struct pci_dev *pdev = out->private;
	u8 uuid[16] = {};
	int mailbox = pci_find_vsec_capability(pdev, PCI_VENDOR_ID_NVIDIA, LAB_VSEC_ID), i;

	for (i = 0; i < 16 && mailbox; i++)
		pci_read_config_byte(pdev, mailbox + LAB_UUID + i, uuid + i);
	seq_printf(out, "BIOS Version: %s\nUUID: SWX-%pUb\nPhysical location ID: %04x\n", "96.10.50.00.01", uuid,
		   PCI_SLOT(pdev->devfn));
	return 0;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct proc_dir_entry *folder;
	int rc;

	pr_info("nvidia-nvswitch: Probing device %s, Vendor Id = 0x%x, Device Id = 0x%x, Class = 0x%x \n", pci_name(pdev),
		pdev->vendor, pdev->device, pdev->class);
	rc = pci_enable_device(pdev);
	if (rc)
		return rc;
	folder = proc_mkdir(pci_name(pdev), devices);
	proc_create_single_data("information", 0444, folder, show_switch, pdev);
	pci_set_drvdata(pdev, folder);
	nv_switches++;
	return 0;
}

static void remove(struct pci_dev *pdev)
{
	pr_info("nvidia-nvswitch: removing device %s\n", pci_name(pdev));
	proc_remove(pci_get_drvdata(pdev));
	pci_disable_device(pdev);
	nv_switches--;
}

static const struct pci_device_id nv_switch_ids[] = {
	{ .vendor = PCI_VENDOR_ID_NVIDIA, .device = PCI_ANY_ID, .subvendor = PCI_ANY_ID, .subdevice = PCI_ANY_ID,
	  .class = PCI_CLASS_BRIDGE_OTHER << 8, .class_mask = ~0 },
	{}
};
MODULE_DEVICE_TABLE(pci, nv_switch_ids);

static struct pci_driver driver = { .name = "nvidia-nvswitch", .id_table = nv_switch_ids, .probe = probe, .remove = remove };
static bool registered;

static void make_trees(void)
{
	struct proc_dir_entry *folder;

	link_tree = proc_mkdir("driver/nvidia-nvlink", NULL);
	proc_create_single_data("permissions", 0444, link_tree, show_permissions, NULL);
	folder = proc_mkdir("capabilities", link_tree);
	nv_caps_file("fabric-mgmt", folder, 0, 0400);
	switch_tree = proc_mkdir("driver/nvidia-nvswitch", NULL);
	proc_create_single_data("permissions", 0444, switch_tree, show_permissions, NULL);
	devices = proc_mkdir("devices", switch_tree);
}

int nv_switch_init(void)
{
	int rc = nv_region_add(&link_region, 0, 1, "nvidia-nvlink", &nv_silent_ops);

	if (!rc) {
		pr_info("nvidia-nvlink: Nvlink Core is being initialized, major device number %d\n", MAJOR(link_region.first));
		rc = nv_region_add(&switch_region, 0, MINOR_SWITCH_CTL + 1, "nvidia-nvswitch", &nv_silent_ops);
	}
	if (!rc) {
		make_trees();
		rc = pci_register_driver(&driver);
		registered = !rc;
	}
	if (rc)
		nv_switch_exit();
	return rc;
}

void nv_switch_exit(void)
{
	if (registered)
		pci_unregister_driver(&driver);
	registered = false;
	proc_remove(switch_tree);
	proc_remove(link_tree);
	nv_region_remove(&switch_region);
	if (link_region.live)
		pr_info("nvidia-nvlink: Unregistered Nvlink Core, major device number %d\n", MAJOR(link_region.first));
	nv_region_remove(&link_region);
}
