/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LAB_PCI_H
#define LAB_PCI_H

#include <linux/pci.h>

#define LAB_CONFIG_SIZE	4096
#define LAB_MAILBOX	0x100	/* where the capability of lab_mailbox.h lies */
#define LAB_EXTENDED	0x200	/* and the other extended capabilities */
#define LAB_BARS	3	/* 64-bit BARs 0, 2 and 4 */
#define LAB_VPD_SIZE	256

struct lab_function {
	struct list_head entry;
	int domain, bus, devfn, numa;
	int secondary, subordinate;		/* bridges only; 0 = no bridge */
	int port;				/* PCI_EXP_TYPE_*; bridges only */
	unsigned int link_speed, link_width;	/* PCIe generation, lanes that the link can have */
	unsigned int now_speed, now_width;	/* and has; 0: the same */
	bool off_bus, vpd_error, has_flr, has_acs, has_ats;
	u8 config[LAB_CONFIG_SIZE];
	u8 writable[LAB_CONFIG_SIZE];
	u8 fresh[PCI_CFG_SPACE_SIZE];		/* what a reset brings back */
	u64 bars[LAB_BARS];
	u8 vpd[LAB_VPD_SIZE];
	u32 vpd_length;
	u32 boot0, boot42;			/* identity registers behind BAR0, when it has memory */
};

extern struct list_head lab_functions;
extern struct pci_ops lab_config_ops;

/* lab_machine.c: text to functions. */
int lab_add_function(const char *spec);
struct lab_function *lab_find(int domain, int bus, int devfn);

/* lab_keys.c: what stands behind the first three parts. */
int lab_set_key(struct lab_function *fn, const char *key, char *value);
/* Address of a named mailbox number, or NULL. */
u32 *lab_mailbox_number(struct lab_function *fn, const char *name);

/* lab_control.c: /proc/lab-pci. */
int lab_control_init(void);
void lab_control_exit(void);

/* lab_config.c: configuration space. */
void lab_build_config(struct lab_function *fn);
void lab_reset_function(struct lab_function *fn);

static inline void lab_put16(struct lab_function *fn, int at, u16 value, u16 writable)
{
	*(u16 *)(fn->config + at) = value;
	*(u16 *)(fn->writable + at) = writable;
}

static inline void lab_put32(struct lab_function *fn, int at, u32 value, u32 writable)
{
	*(u32 *)(fn->config + at) = value;
	*(u32 *)(fn->writable + at) = writable;
}

#endif
