// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * An emulated mlx5_ib.ko: InfiniBand functions appear in /sys/class/infiniband as mlx5_<N> with one port, its
 * capability mask, state, rate and GID, as the mailbox describes them. Enough to choose a port for a subnet manager;
 * there is no fabric and no verb behind it.
 */
#include "lab_mailbox.h"

#include <linux/device.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>

#define CLASS_INFINIBAND 0x0207

struct ib_port {
	struct device *dev;
	struct kobject *ports, *port, *gids;
	u32 mask, state;
	u8 guid[8];
	int number;
};

static struct class *class;
static DEFINE_IDA(numbers);

/* mlx5_0/ports/1 and mlx5_0/ports/1/gids: the device is two or three levels up. */
static struct ib_port *port_of(struct kobject *kobj)
{
	while (kobj && strncmp(kobject_name(kobj), "mlx5_", 5))
		kobj = kobj->parent;
	return kobj ? dev_get_drvdata(kobj_to_dev(kobj)) : NULL;
}

static ssize_t cap_mask_show(struct kobject *kobj, struct kobj_attribute *attribute, char *out)
{
	return sysfs_emit(out, "0x%08x\n", port_of(kobj)->mask);
}

static ssize_t state_show(struct kobject *kobj, struct kobj_attribute *attribute, char *out)
{
	static const char *const names[] = { "NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER" };
	u32 state = port_of(kobj)->state;

	return sysfs_emit(out, "%u: %s\n", state, state < ARRAY_SIZE(names) ? names[state] : "UNKNOWN");
}

static ssize_t link_layer_show(struct kobject *kobj, struct kobj_attribute *attribute, char *out)
{
	return sysfs_emit(out, "InfiniBand\n");
}

static ssize_t gid_show(struct kobject *kobj, struct kobj_attribute *attribute, char *out)
{
	u8 *guid = port_of(kobj)->guid;

	return sysfs_emit(out, "fe80:0000:0000:0000:%02x%02x:%02x%02x:%02x%02x:%02x%02x\n", guid[0], guid[1], guid[2], guid[3],
			  guid[4], guid[5], guid[6], guid[7]);
}

static struct kobj_attribute cap_mask = __ATTR_RO(cap_mask);
static struct kobj_attribute state = __ATTR_RO(state);
static struct kobj_attribute link_layer = __ATTR_RO(link_layer);
static struct kobj_attribute gid = __ATTR(0, 0444, gid_show, NULL);
static const struct attribute *const port_files[] = { &cap_mask.attr, &state.attr, &link_layer.attr, NULL };

static void read_port(struct ib_port *port, struct pci_dev *pdev)
{
	int mailbox = pci_find_vsec_capability(pdev, pdev->vendor, LAB_VSEC_ID), i;

	if (!mailbox)
		return;
	pci_read_config_dword(pdev, mailbox + LAB_PORT_MASK, &port->mask);
	pci_read_config_dword(pdev, mailbox + LAB_PORT_STATE, &port->state);
	for (i = 0; i < sizeof(port->guid); i++)
		pci_read_config_byte(pdev, mailbox + LAB_PORT_GUID + i, port->guid + i);
}

static void remove_port(struct ib_port *port)
{
	kobject_put(port->gids);
	kobject_put(port->port);
	kobject_put(port->ports);
	device_unregister(port->dev);
	ida_free(&numbers, port->number);
	kfree(port);
}

static int add_files(struct ib_port *port)
{
	port->ports = kobject_create_and_add("ports", &port->dev->kobj);
	port->port = port->ports ? kobject_create_and_add("1", port->ports) : NULL;
	port->gids = port->port ? kobject_create_and_add("gids", port->port) : NULL;
	if (!port->gids)
		return -ENOMEM;
	return sysfs_create_files(port->port, port_files) ?: sysfs_create_file(port->gids, &gid.attr);
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct ib_port *port = kzalloc(sizeof(*port), GFP_KERNEL);
	int rc;

	if (!port)
		return -ENOMEM;
	read_port(port, pdev);
	port->number = ida_alloc(&numbers, GFP_KERNEL);
	port->dev = device_create(class, &pdev->dev, 0, port, "mlx5_%d", port->number);
	if (IS_ERR(port->dev)) {
		rc = PTR_ERR(port->dev);
		ida_free(&numbers, port->number);
		kfree(port);
		return rc;
	}
	rc = add_files(port);
	if (rc)
		remove_port(port);
	else
		pci_set_drvdata(pdev, port);
	return rc;
}

static void remove(struct pci_dev *pdev)
{
	remove_port(pci_get_drvdata(pdev));
}

static const struct pci_device_id mlx5_ids[] = {
	{ .vendor = PCI_VENDOR_ID_MELLANOX, .device = PCI_ANY_ID, .subvendor = PCI_ANY_ID, .subdevice = PCI_ANY_ID,
	  .class = CLASS_INFINIBAND << 8, .class_mask = ~0 },
	{}
};
MODULE_DEVICE_TABLE(pci, mlx5_ids);

static struct pci_driver driver = { .name = "mlx5_core", .id_table = mlx5_ids, .probe = probe, .remove = remove };

static int __init mlx5_init(void)
{
	int rc;

	class = class_create("infiniband");
	if (IS_ERR(class))
		return PTR_ERR(class);
	rc = pci_register_driver(&driver);
	if (rc)
		class_destroy(class);
	return rc;
}

static void __exit mlx5_exit(void)
{
	pci_unregister_driver(&driver);
	class_destroy(class);
}

module_init(mlx5_init);
module_exit(mlx5_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("emulated InfiniBand ports, for tests");
