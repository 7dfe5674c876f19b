/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the emulated mlx5_core.ko hands to the emulated mlx5_ib.ko, over the auxiliary bus as the real one does. */
#ifndef LAB_MLX5_H
#define LAB_MLX5_H

#include <linux/auxiliary_bus.h>
#include <linux/pci.h>

struct lab_nic {
	struct auxiliary_device aux;	/* mlx5_core.rdma.<N> */
	struct pci_dev *pdev;
	struct net_device *netdev;	/* Ethernet functions only */
	u32 mask, state, faults;
	u8 guid[8];
};

/* As the real mlx5_ib.ko needs symbols of mlx5_core.ko, so that who loads the one gets the other. */
struct lab_nic *lab_nic_of(struct auxiliary_device *aux);

#endif
