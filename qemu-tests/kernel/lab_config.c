// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Configuration space served from memory: capabilities, BAR sizing, VPD, function-level and secondary bus reset. */
#include "lab_pci.h"
#include "lab_mailbox.h"

#define CAP_PM	0x40
#define CAP_MSI	0x50
#define CAP_EXP	0x70
#define CAP_VPD	0xb0

static bool is_bridge(const struct lab_function *fn)
{
	return fn->secondary;
}

static void build_bridge(struct lab_function *fn)
{
	fn->config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_BRIDGE;
	fn->config[PCI_PRIMARY_BUS] = fn->bus;
	fn->config[PCI_SECONDARY_BUS] = fn->secondary;
	fn->config[PCI_SUBORDINATE_BUS] = fn->subordinate;
	memset(fn->writable + PCI_PRIMARY_BUS, 0xff, 3);
	lab_put16(fn, PCI_MEMORY_BASE, 0xfff0, 0xfff0);	/* base above limit: closed until the kernel opens it */
	lab_put16(fn, PCI_MEMORY_LIMIT, 0, 0xfff0);
	lab_put16(fn, PCI_PREF_MEMORY_BASE, 0xfff1, 0xfff0);	/* 64-bit */
	lab_put16(fn, PCI_PREF_MEMORY_LIMIT, 0x0001, 0xfff0);
	lab_put32(fn, PCI_PREF_BASE_UPPER32, ~0u, ~0u);
	lab_put32(fn, PCI_PREF_LIMIT_UPPER32, 0, ~0u);
	lab_put16(fn, PCI_BRIDGE_CONTROL, 0, 0x0fff);
}

static void build_bars(struct lab_function *fn)
{
	int i;

	for (i = 0; i < LAB_BARS; i++) {
		int at = PCI_BASE_ADDRESS_0 + 8 * i;
		u64 mask = fn->bars[i] ? ~(fn->bars[i] - 1) : 0;

		if (!fn->bars[i])
			continue;
		lab_put32(fn, at, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, (u32)mask);
		lab_put32(fn, at + 4, 0, mask >> 32);
	}
}

static u8 *chain(struct lab_function *fn, u8 *last, u8 at, u8 id)
{
	*last = at;
	fn->config[at] = id;
	return fn->config + at + 1;
}

static void build_express(struct lab_function *fn, bool behind_bridge)
{
	u32 link = fn->link_speed | fn->link_width << 4;
	u32 now = (fn->now_speed ?: fn->link_speed) | (fn->now_width ?: fn->link_width) << 4;
	int type = is_bridge(fn) ? fn->port : behind_bridge ? PCI_EXP_TYPE_ENDPOINT : PCI_EXP_TYPE_RC_END;

	lab_put16(fn, CAP_EXP + PCI_EXP_FLAGS, 2 | type << 4, 0);
	lab_put32(fn, CAP_EXP + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER | (fn->has_flr ? PCI_EXP_DEVCAP_FLR : 0) | 1, 0);
	lab_put16(fn, CAP_EXP + PCI_EXP_DEVCTL, 0x2810, 0x7fff);
	lab_put32(fn, CAP_EXP + PCI_EXP_LNKCAP, 0x00400000 | link, 0);
	lab_put16(fn, CAP_EXP + PCI_EXP_LNKCTL, 0, 0x0fff);
	lab_put16(fn, CAP_EXP + PCI_EXP_LNKSTA, PCI_EXP_LNKSTA_SLC | now, 0);
	lab_put32(fn, CAP_EXP + PCI_EXP_LNKCAP2, ((1 << fn->link_speed) - 1) << 1, 0);
}

static bool is_behind_bridge(const struct lab_function *fn)
{
	struct lab_function *other;

	list_for_each_entry(other, &lab_functions, entry)
		if (other->domain == fn->domain && other->secondary && other->secondary <= fn->bus &&
		    fn->bus <= other->subordinate)
			return true;
	return false;
}

static u8 *build_msi(struct lab_function *fn, u8 *last)
{
	last = chain(fn, last, CAP_MSI, PCI_CAP_ID_MSI);
	lab_put16(fn, CAP_MSI + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	lab_put32(fn, CAP_MSI + PCI_MSI_ADDRESS_LO, 0, ~3u);
	lab_put32(fn, CAP_MSI + PCI_MSI_ADDRESS_HI, 0, ~0u);
	lab_put16(fn, CAP_MSI + PCI_MSI_DATA_64, 0, 0xffff);
	return last;
}

static u8 *build_vpd(struct lab_function *fn, u8 *last)
{
	last = chain(fn, last, CAP_VPD, PCI_CAP_ID_VPD);
	lab_put16(fn, CAP_VPD + PCI_VPD_ADDR, 0, 0xffff);
	lab_put32(fn, CAP_VPD + PCI_VPD_DATA, 0, ~0u);
	return last;
}

static int build_extended(struct lab_function *fn, int at, int id, bool more)
{
	lab_put32(fn, at, id | 1 << 16 | (more ? at + 0x20 : 0) << 20, 0);
	lab_put16(fn, at + 6, 0, 0xffff);	/* control word of both */
	return at + 0x20;
}

static void build_mailbox(struct lab_function *fn)
{
	int next = fn->has_acs || fn->has_ats ? LAB_EXTENDED : 0, at = next;

	lab_put32(fn, LAB_MAILBOX, PCI_EXT_CAP_ID_VNDR | 1 << 16 | next << 20, 0);
	if (fn->has_acs)
		at = build_extended(fn, at, PCI_EXT_CAP_ID_ACS, fn->has_ats);
	if (fn->has_ats)
		build_extended(fn, at, PCI_EXT_CAP_ID_ATS, false);
	lab_put32(fn, LAB_MAILBOX + PCI_VNDR_HEADER, LAB_VSEC_ID | 1 << 16 | LAB_VSEC_LENGTH << 20, 0);
	*(u32 *)(fn->writable + LAB_MAILBOX + LAB_STATE) = ~0u;
}

/* The description has filled identity, mailbox, BAR sizes and VPD; this adds what follows from them. */
void lab_build_config(struct lab_function *fn)
{
	u8 *last = fn->config + PCI_CAPABILITY_LIST;

	lab_put16(fn, PCI_COMMAND, 0, 0x0547);
	lab_put16(fn, PCI_STATUS, PCI_STATUS_CAP_LIST, 0);
	fn->writable[PCI_INTERRUPT_LINE] = 0xff;
	if (is_bridge(fn))
		build_bridge(fn);
	else
		build_bars(fn);
	last = chain(fn, last, CAP_PM, PCI_CAP_ID_PM);
	lab_put16(fn, CAP_PM + PCI_PM_PMC, 3, 0);
	lab_put16(fn, CAP_PM + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET, PCI_PM_CTRL_STATE_MASK);
	last = chain(fn, last, CAP_EXP, PCI_CAP_ID_EXP);
	build_express(fn, is_behind_bridge(fn));
	if (!is_bridge(fn))
		last = build_msi(fn, last);
	if (fn->vpd_length)
		last = build_vpd(fn, last);
	*last = 0;
	build_mailbox(fn);
	memcpy(fn->fresh, fn->config, sizeof(fn->fresh));
}

void lab_reset_function(struct lab_function *fn)
{
	memcpy(fn->config, fn->fresh, sizeof(fn->fresh));
	++*(u32 *)(fn->config + LAB_MAILBOX + LAB_RESETS);
	if (!(*(u32 *)(fn->config + LAB_MAILBOX + LAB_FAULTS) & LAB_FAULT_STICKY))
		*(u32 *)(fn->config + LAB_MAILBOX + LAB_STATE) = 0;
}

static void reset_below(struct lab_function *bridge)
{
	struct lab_function *fn;

	list_for_each_entry(fn, &lab_functions, entry)
		if (fn->domain == bridge->domain && fn->bus >= bridge->secondary && fn->bus <= bridge->subordinate)
			lab_reset_function(fn);
}

/* Software writes an address and waits for the flag; a device that never raises it makes the read time out. */
static void answer_vpd(struct lab_function *fn)
{
	u16 address = *(u16 *)(fn->config + CAP_VPD + PCI_VPD_ADDR);
	u32 data = 0;

	if (address & PCI_VPD_ADDR_F || fn->vpd_error)
		return;
	if (address + 4 <= LAB_VPD_SIZE)
		memcpy(&data, fn->vpd + address, 4);
	*(u32 *)(fn->config + CAP_VPD + PCI_VPD_DATA) = data;
	*(u16 *)(fn->config + CAP_VPD + PCI_VPD_ADDR) = address | PCI_VPD_ADDR_F;
}

static int config_read(struct pci_bus *bus, unsigned int devfn, int at, int size, u32 *value)
{
	struct lab_function *fn = lab_find(pci_domain_nr(bus), bus->number, devfn);

	*value = ~0u;
	if (!fn)
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (fn->off_bus || at + size > LAB_CONFIG_SIZE)
		return PCIBIOS_SUCCESSFUL;	/* all ones, as from a device that has fallen off the bus */
	*value = 0;
	memcpy(value, fn->config + at, size);
	return PCIBIOS_SUCCESSFUL;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int at, int size, u32 value)
{
	struct lab_function *fn = lab_find(pci_domain_nr(bus), bus->number, devfn);
	u32 given = value;
	int i;

	if (!fn)
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (fn->off_bus || at + size > LAB_CONFIG_SIZE)
		return PCIBIOS_SUCCESSFUL;
	for (i = 0; i < size; i++, value >>= 8) {
		u8 mask = fn->writable[at + i];

		fn->config[at + i] = (fn->config[at + i] & ~mask) | (value & mask);
	}
	if (fn->vpd_length && at == CAP_VPD + PCI_VPD_ADDR)
		answer_vpd(fn);
	if (at == CAP_EXP + PCI_EXP_DEVCTL && given & PCI_EXP_DEVCTL_BCR_FLR && !is_bridge(fn) &&
	    *(u32 *)(fn->config + CAP_EXP + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR)
		lab_reset_function(fn);
	if (is_bridge(fn) && at == PCI_BRIDGE_CONTROL && given & PCI_BRIDGE_CTL_BUS_RESET)
		reset_below(fn);
	return PCIBIOS_SUCCESSFUL;
}

struct pci_ops lab_config_ops = { .read = config_read, .write = config_write };
