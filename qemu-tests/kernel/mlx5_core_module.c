// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * An emulated mlx5_core.ko: takes the network functions of vendor 15b3, gives a network device to those of class 0200,
 * and makes an auxiliary device of each for mlx5_ib.ko. No packet goes anywhere. What it says of a function, and what
 * fails, is in the function's mailbox.
 */
#include "lab_mailbox.h"
#include "lab_mlx5.h"

#include <linux/etherdevice.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/slab.h>

static DEFINE_IDA(numbers);

struct lab_nic *lab_nic_of(struct auxiliary_device *aux)
{
	return container_of(aux, struct lab_nic, aux);
}
EXPORT_SYMBOL_GPL(lab_nic_of);

static netdev_tx_t drop(struct sk_buff *skb, struct net_device *netdev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops netdev_ops = {
	.ndo_start_xmit = drop,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void read_mailbox(struct lab_nic *nic)
{
	struct pci_dev *pdev = nic->pdev;
	int mailbox = pci_find_vsec_capability(pdev, pdev->vendor, LAB_VSEC_ID), i;

	if (!mailbox)
		return;
	pci_read_config_dword(pdev, mailbox + LAB_FAULTS, &nic->faults);
	pci_read_config_dword(pdev, mailbox + LAB_PORT_MASK, &nic->mask);
	pci_read_config_dword(pdev, mailbox + LAB_PORT_STATE, &nic->state);
	for (i = 0; i < sizeof(nic->guid); i++)
		pci_read_config_byte(pdev, mailbox + LAB_PORT_GUID + i, nic->guid + i);
}

/* The address that the GUID was made of, if it looks like it: an EUI-64 has two bytes more, in the middle. */
static int add_netdev(struct lab_nic *nic)
{
	const u8 *guid = nic->guid;
	u8 address[ETH_ALEN] = { guid[0] & ~3, guid[1], guid[2], guid[5], guid[6], guid[7] };
	int rc;

	nic->netdev = alloc_etherdev(0);
	if (!nic->netdev)
		return -ENOMEM;
	SET_NETDEV_DEV(nic->netdev, &nic->pdev->dev);
	nic->netdev->netdev_ops = &netdev_ops;
	if (is_valid_ether_addr(address))
		eth_hw_addr_set(nic->netdev, address);
	else
		eth_hw_addr_random(nic->netdev);
	rc = register_netdev(nic->netdev);
	if (rc) {
		free_netdev(nic->netdev);
		nic->netdev = NULL;
	}
	return rc;
}

static void remove_netdev(struct lab_nic *nic)
{
	if (!nic->netdev)
		return;
	unregister_netdev(nic->netdev);
	free_netdev(nic->netdev);
}

static void release(struct device *dev)
{
	struct lab_nic *nic = container_of(dev, struct lab_nic, aux.dev);

	ida_free(&numbers, nic->aux.id);
	kfree(nic);
}

/* From the moment of its initialisation on, the device frees everything when it is let go. */
static int add_auxiliary(struct lab_nic *nic)
{
	int rc = ida_alloc(&numbers, GFP_KERNEL);

	if (rc < 0)
		return rc;
	nic->aux.id = rc;
	nic->aux.name = "rdma";
	nic->aux.dev.parent = &nic->pdev->dev;
	nic->aux.dev.release = release;
	rc = auxiliary_device_init(&nic->aux);
	if (rc) {
		ida_free(&numbers, nic->aux.id);
		return rc;
	}
	rc = auxiliary_device_add(&nic->aux);
	if (rc) {
		remove_netdev(nic);
		auxiliary_device_uninit(&nic->aux);
	}
	return rc ? 1 : 0;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct lab_nic *nic = kzalloc(sizeof(*nic), GFP_KERNEL);
	int rc = 0;

	if (!nic)
		return -ENOMEM;
	nic->pdev = pdev;
	read_mailbox(nic);
	if (nic->faults & LAB_FAULT_PROBE)
		rc = -ENODEV;
	else if (pdev->class >> 8 == PCI_CLASS_NETWORK_ETHERNET)
		rc = add_netdev(nic);
	if (rc) {
		kfree(nic);
		return rc;
	}
	rc = add_auxiliary(nic);
	if (rc > 0)
		return -ENODEV;	/* all is freed */
	if (rc) {
		remove_netdev(nic);
		kfree(nic);
		return rc;
	}
	pci_set_drvdata(pdev, nic);
	return 0;
}

static void remove(struct pci_dev *pdev)
{
	struct lab_nic *nic = pci_get_drvdata(pdev);

	auxiliary_device_delete(&nic->aux);
	remove_netdev(nic);
	auxiliary_device_uninit(&nic->aux);
}

#define NETWORK(code) \
	{ .vendor = PCI_VENDOR_ID_MELLANOX, .device = PCI_ANY_ID, .subvendor = PCI_ANY_ID, .subdevice = PCI_ANY_ID, \
	  .class = (code) << 8, .class_mask = ~0 }

static const struct pci_device_id ids[] = { NETWORK(PCI_CLASS_NETWORK_ETHERNET), NETWORK(LAB_CLASS_INFINIBAND), {} };
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver mlx5_core = { .name = "mlx5_core", .id_table = ids, .probe = probe, .remove = remove };
module_pci_driver(mlx5_core);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("emulated network functions, for tests");
