// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The keys of a function's description and the values they take:
 *   sub=10de:16c1  rev=a1  numa=0  irq=11  bars=16M+256M+32M (0, 2 and 4, each a power of two, 0 = none)
 *   vpd=TEXT (identifier and part number; %20 is a blank)  vpd-error=1 (reads time out)  flr=0 (no function-level reset)
 *   bus=41-42 (a bridge: secondary and subordinate bus)  port=root|up|down (which bridge)  acs=1 ats=1 link=5x16
 *   (generation and width that the link can have, and has unless now=3x8 says)  boot0=HEX boot42=HEX (registers, with mmio=)
 *   attach_ms= faults=attach+hang+probe+sticky+nvlink+gid cc= minor= status= uuid=32 hex digits model=TEXT vbios=TEXT
 *   mig=1.0+2.0+2.1 (GPU instance and compute instance)
 *   port_mask= port_state= guid=16 hex digits (network functions)
 */
#include "lab_pci.h"
#include "lab_mailbox.h"

#include <linux/hex.h>
#include <linux/string.h>

static const struct {
	const char *name;
	int at;
} numbers[] = {
	{ "attach_ms", LAB_ATTACH_MS }, { "faults", LAB_FAULTS }, { "state", LAB_STATE },
	{ "cc", LAB_CC },		{ "minor", LAB_MINOR },   { "status", LAB_STATUS },
	{ "port_mask", LAB_PORT_MASK }, { "port_state", LAB_PORT_STATE },
};

static const struct {
	const char *name;
	u32 bit;
} faults[] = {
	{ "attach", LAB_FAULT_ATTACH },
	{ "hang", LAB_FAULT_HANG },
	{ "probe", LAB_FAULT_PROBE },
	{ "sticky", LAB_FAULT_STICKY },
	{ "nvlink", LAB_FAULT_NVLINK },
	{ "gid", LAB_FAULT_GID },
};

u32 *lab_mailbox_number(struct lab_function *fn, const char *name)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!strcmp(numbers[i].name, name))
			return (u32 *)(fn->config + LAB_MAILBOX + numbers[i].at);
	return NULL;
}

/* Copies text with %XX decoded; what does not fit is an error, so that no scenario is cut silently. */
static int copy_text(u8 *into, size_t size, const char *text)
{
	size_t at = 0;

	for (; *text; text++) {
		u8 byte = *text;

		if (byte == '%' && (hex2bin(&byte, text + 1, 1) || (text += 2, 0)))
			return -EINVAL;
		if (at + 1 >= size)
			return -E2BIG;
		into[at++] = byte;
	}
	into[at] = 0;
	return 0;
}

static int parse_faults(u32 *into, char *text)
{
	char *word;
	int i;

	*into = 0;
	while ((word = strsep(&text, "+"))) {
		for (i = 0; i < ARRAY_SIZE(faults) && strcmp(word, faults[i].name); i++)
			;
		if (i == ARRAY_SIZE(faults))
			return -EINVAL;
		*into |= faults[i].bit;
	}
	return 0;
}

static int parse_bars(u64 *bars, char *text)
{
	char *word, *end;
	int i;

	memset(bars, 0, LAB_BARS * sizeof(*bars));
	for (i = 0; (word = strsep(&text, "+")); i++) {
		if (i == LAB_BARS)
			return -E2BIG;
		bars[i] = memparse(word, &end);
		if (*end || (bars[i] && (bars[i] < PAGE_SIZE || bars[i] & (bars[i] - 1))))
			return -EINVAL;
	}
	return 0;
}

static int parse_mig(u8 *into, char *text)
{
	unsigned int gi, ci;
	char *word;

	while ((word = strsep(&text, "+"))) {
		if (sscanf(word, "%u.%u", &gi, &ci) != 2 || gi >= LAB_MIG_INSTANCES || ci >= LAB_MIG_COMPUTE)
			return -EINVAL;
		into[gi] |= 1 << ci;
	}
	return 0;
}

/* Identifier string, then a read-only part with part number, serial number and checksum field. */
static int build_vpd(struct lab_function *fn, const char *text)
{
	u8 name[64];
	int length, rc = copy_text(name, sizeof(name), text);
	u8 *at = fn->vpd;

	if (rc)
		return rc;
	length = strlen(name);
	*at++ = 0x82;
	*at++ = length;
	*at++ = 0;
	memcpy(at, name, length);
	at += length;
	*at++ = 0x90;
	*at++ = 3 + length + 7 + 4;
	*at++ = 0;
	at += sprintf(at, "PN%c%s", length, name);
	at += sprintf(at, "SN%c0001", 4);
	at += sprintf(at, "RV%c", 1) + 1;
	at[-1] = 0;
	*at++ = 0x78;
	fn->vpd_length = at - fn->vpd;
	return 0;
}

static int set_sub(struct lab_function *fn, char *value)
{
	unsigned int vendor, device;

	if (sscanf(value, "%x:%x", &vendor, &device) != 2)
		return -EINVAL;
	lab_put16(fn, PCI_SUBSYSTEM_VENDOR_ID, vendor, 0);
	lab_put16(fn, PCI_SUBSYSTEM_ID, device, 0);
	return 0;
}

static int set_bus(struct lab_function *fn, char *value)
{
	return sscanf(value, "%x-%x", &fn->secondary, &fn->subordinate) == 2 ? 0 : -EINVAL;
}

static int set_port(struct lab_function *fn, char *value)
{
	fn->port = !strcmp(value, "up") ? PCI_EXP_TYPE_UPSTREAM : !strcmp(value, "down") ? PCI_EXP_TYPE_DOWNSTREAM : PCI_EXP_TYPE_ROOT_PORT;
	return fn->port != PCI_EXP_TYPE_ROOT_PORT || !strcmp(value, "root") ? 0 : -EINVAL;
}

static int set_acs(struct lab_function *fn, char *value)
{
	return kstrtobool(value, &fn->has_acs);
}

static int set_ats(struct lab_function *fn, char *value)
{
	return kstrtobool(value, &fn->has_ats);
}

static int parse_link(char *value, unsigned int *speed, unsigned int *width)
{
	return sscanf(value, "%ux%u", speed, width) == 2 && *speed - 1 < 6 && *width - 1 < 32 ? 0 : -EINVAL;
}

static int set_link(struct lab_function *fn, char *value)
{
	return parse_link(value, &fn->link_speed, &fn->link_width);
}

static int set_now(struct lab_function *fn, char *value)
{
	return parse_link(value, &fn->now_speed, &fn->now_width);
}

static int set_rev(struct lab_function *fn, char *value)
{
	return kstrtou8(value, 16, fn->config + PCI_CLASS_REVISION);
}

static int set_numa(struct lab_function *fn, char *value)
{
	return kstrtoint(value, 10, &fn->numa);
}

static int set_irq(struct lab_function *fn, char *value)
{
	return kstrtou8(value, 10, fn->config + PCI_INTERRUPT_LINE);
}

static int set_bars(struct lab_function *fn, char *value)
{
	return parse_bars(fn->bars, value);
}

static int set_vpd(struct lab_function *fn, char *value)
{
	return build_vpd(fn, value);
}

static int set_vpd_error(struct lab_function *fn, char *value)
{
	return kstrtobool(value, &fn->vpd_error);
}

static int set_flr(struct lab_function *fn, char *value)
{
	return kstrtobool(value, &fn->has_flr);
}

static int set_boot0(struct lab_function *fn, char *value)
{
	return kstrtou32(value, 16, &fn->boot0);
}

static int set_boot42(struct lab_function *fn, char *value)
{
	return kstrtou32(value, 16, &fn->boot42);
}

static int set_faults(struct lab_function *fn, char *value)
{
	return parse_faults((u32 *)(fn->config + LAB_MAILBOX + LAB_FAULTS), value);
}

static int set_mig(struct lab_function *fn, char *value)
{
	return parse_mig(fn->config + LAB_MAILBOX + LAB_MIG, value);
}

static int set_uuid(struct lab_function *fn, char *value)
{
	return strlen(value) == 32 ? hex2bin(fn->config + LAB_MAILBOX + LAB_UUID, value, 16) : -EINVAL;
}

static int set_guid(struct lab_function *fn, char *value)
{
	return strlen(value) == 16 ? hex2bin(fn->config + LAB_MAILBOX + LAB_PORT_GUID, value, 8) : -EINVAL;
}

static int set_model(struct lab_function *fn, char *value)
{
	return copy_text(fn->config + LAB_MAILBOX + LAB_MODEL, LAB_MODEL_SIZE, value);
}

static int set_vbios(struct lab_function *fn, char *value)
{
	return copy_text(fn->config + LAB_MAILBOX + LAB_VBIOS, LAB_VBIOS_SIZE, value);
}

static const struct {
	const char *name;
	int (*set)(struct lab_function *fn, char *value);
} keys[] = {
	{ "sub", set_sub },	  { "bus", set_bus },	      { "rev", set_rev },	  { "numa", set_numa },
	{ "irq", set_irq },	  { "bars", set_bars },	      { "vpd", set_vpd },	  { "vpd-error", set_vpd_error },
	{ "flr", set_flr },	  { "boot0", set_boot0 },     { "boot42", set_boot42 },	  { "faults", set_faults },
	{ "mig", set_mig },	  { "uuid", set_uuid },	      { "guid", set_guid },	  { "model", set_model },
	{ "vbios", set_vbios },	  { "port", set_port },	      { "acs", set_acs },	  { "ats", set_ats },
	{ "link", set_link },	  { "now", set_now },
};

/* A key of the table, or one of the mailbox's numbers. */
int lab_set_key(struct lab_function *fn, const char *key, char *value)
{
	u32 *number;
	int i;

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcmp(keys[i].name, key))
			return keys[i].set(fn, value);
	number = lab_mailbox_number(fn, key);
	return number ? kstrtou32(value, 0, number) : -ENOKEY;
}
