// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The mailbox of a GPU (lab_mailbox.h), in its configuration space. One without it says nothing, and zeros. */
#include "nv.h"

u32 nv_mailbox_read(const struct nv_gpu *gpu, int at)
{
	u32 value = 0;

	if (gpu->mailbox)
		pci_read_config_dword(gpu->pdev, gpu->mailbox + at, &value);
	else if (at == LAB_MINOR)
		value = LAB_MINOR_NEXT;
	return value;
}

void nv_mailbox_bytes(const struct nv_gpu *gpu, int at, u8 *into, int size)
{
	int i;

	memset(into, 0, size);
	for (i = 0; i < size && gpu->mailbox; i++)
		pci_read_config_byte(gpu->pdev, gpu->mailbox + at + i, into + i);
}

void nv_mailbox_write(const struct nv_gpu *gpu, int at, u32 value)
{
	if (gpu->mailbox)
		pci_write_config_dword(gpu->pdev, gpu->mailbox + at, value);
}
