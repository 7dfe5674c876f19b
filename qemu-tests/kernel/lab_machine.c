// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The description of a machine, one text per function:
 *   0000:40:00.0/10de:2330/030200[/KEY=VALUE...]
 * Numbers of the first three parts are hexadecimal, as in sysfs. Keys:
 *   sub=10de:16c1  rev=a1  numa=0  irq=11  bars=16M+256M+32M (0, 2 and 4, each a power of two, 0 = none)
 *   vpd=TEXT (identifier and part number; %20 is a blank)  vpd-error=1 (reads time out)
 *   bus=41-42 (a bridge: secondary and subordinate bus)  boot0=HEX boot42=HEX (registers, with mmio=)
 *   attach_ms= faults=attach+hang+probe+sticky+nvlink cc= minor= status= uuid=32 hex digits model=TEXT vbios=TEXT
 *   mig=1.0+2.0+2.1 (GPU instance and compute instance)
 */
#include "lab_pci.h"
#include "lab_mailbox.h"

#include <linux/ctype.h>
#include <linux/hex.h>
#include <linux/slab.h>
#include <linux/string.h>

LIST_HEAD(lab_functions);

static const struct {
	const char *name;
	int at;
} numbers[] = {
	{ "attach_ms", LAB_ATTACH_MS }, { "faults", LAB_FAULTS }, { "state", LAB_STATE },
	{ "cc", LAB_CC },		{ "minor", LAB_MINOR },   { "status", LAB_STATUS },
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
};

u32 *lab_mailbox_number(struct lab_function *fn, const char *name)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!strcmp(numbers[i].name, name))
			return (u32 *)(fn->config + LAB_MAILBOX + numbers[i].at);
	return NULL;
}

struct lab_function *lab_find(int domain, int bus, int devfn)
{
	struct lab_function *fn;

	list_for_each_entry(fn, &lab_functions, entry)
		if (fn->domain == domain && fn->bus == bus && fn->devfn == devfn)
			return fn;
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

static int set_number(struct lab_function *fn, const char *key, const char *value)
{
	u32 *number = lab_mailbox_number(fn, key);

	return number ? kstrtou32(value, 0, number) : -ENOKEY;
}

static int set_key(struct lab_function *fn, const char *key, char *value)
{
	u8 *mailbox = fn->config + LAB_MAILBOX;
	unsigned int a, b;

	if (!strcmp(key, "sub") && sscanf(value, "%x:%x", &a, &b) == 2) {
		lab_put16(fn, PCI_SUBSYSTEM_VENDOR_ID, a, 0);
		lab_put16(fn, PCI_SUBSYSTEM_ID, b, 0);
		return 0;
	}
	if (!strcmp(key, "bus") && sscanf(value, "%x-%x", &fn->secondary, &fn->subordinate) == 2)
		return 0;
	if (!strcmp(key, "rev"))
		return kstrtou8(value, 16, fn->config + PCI_CLASS_REVISION);
	if (!strcmp(key, "numa"))
		return kstrtoint(value, 10, &fn->numa);
	if (!strcmp(key, "irq"))
		return kstrtou8(value, 10, fn->config + PCI_INTERRUPT_LINE);
	if (!strcmp(key, "bars"))
		return parse_bars(fn->bars, value);
	if (!strcmp(key, "vpd"))
		return build_vpd(fn, value);
	if (!strcmp(key, "vpd-error"))
		return kstrtobool(value, &fn->vpd_error);
	if (!strcmp(key, "boot0"))
		return kstrtou32(value, 16, &fn->boot0);
	if (!strcmp(key, "boot42"))
		return kstrtou32(value, 16, &fn->boot42);
	if (!strcmp(key, "faults"))
		return parse_faults((u32 *)(mailbox + LAB_FAULTS), value);
	if (!strcmp(key, "mig"))
		return parse_mig(mailbox + LAB_MIG, value);
	if (!strcmp(key, "uuid"))
		return strlen(value) == 32 ? hex2bin(mailbox + LAB_UUID, value, 16) : -EINVAL;
	if (!strcmp(key, "model"))
		return copy_text(mailbox + LAB_MODEL, LAB_MODEL_SIZE, value);
	if (!strcmp(key, "vbios"))
		return copy_text(mailbox + LAB_VBIOS, LAB_VBIOS_SIZE, value);
	return set_number(fn, key, value);
}

/* Place, ids and class, with the defaults that follow from them. */
static int parse_identity(struct lab_function *fn, const char *place, const char *ids, const char *class)
{
	unsigned int slot, func, vendor, device, code;
	bool gpu;

	if (sscanf(place, "%x:%x:%x.%x", &fn->domain, &fn->bus, &slot, &func) != 4 ||
	    sscanf(ids, "%x:%x", &vendor, &device) != 2 || sscanf(class, "%x", &code) != 1 || slot > 31 || func > 7)
		return -EINVAL;
	fn->devfn = PCI_DEVFN(slot, func);
	fn->numa = NUMA_NO_NODE;
	gpu = vendor == PCI_VENDOR_ID_NVIDIA && code >> 16 == PCI_BASE_CLASS_DISPLAY;
	lab_put16(fn, PCI_VENDOR_ID, vendor, 0);
	lab_put16(fn, PCI_DEVICE_ID, device, 0);
	lab_put32(fn, PCI_CLASS_REVISION, code << 8 | 0xa1, 0);
	lab_put16(fn, PCI_SUBSYSTEM_VENDOR_ID, vendor, 0);
	lab_put16(fn, PCI_SUBSYSTEM_ID, gpu ? 0x16c1 : device, 0);
	fn->config[PCI_INTERRUPT_LINE] = 11;
	fn->config[PCI_INTERRUPT_PIN] = 1;	/* nvidia.ko refuses a function without interrupt */
	fn->bars[0] = gpu ? 16 << 20 : 1 << 20;
	fn->bars[1] = gpu ? 256 << 20 : 0;
	fn->bars[2] = gpu ? 32 << 20 : 0;
	fn->boot0 = 0x180000a1;
	fn->boot42 = 0x180a1000;
	*(u32 *)(fn->config + LAB_MAILBOX + LAB_MINOR) = LAB_MINOR_NEXT;
	return 0;
}

static int parse_function(struct lab_function *fn, char *text)
{
	char *place = strsep(&text, "/"), *ids = strsep(&text, "/"), *class = strsep(&text, "/"), *key, *value;
	int rc = ids && class ? parse_identity(fn, place, ids, class) : -EINVAL;

	if (rc)
		pr_err("lab_pci: '%s': want DDDD:BB:SS.F/VENDOR:DEVICE/CLASS\n", place);
	while (!rc && (key = strsep(&text, "/"))) {
		value = strchr(key, '=');
		if (value)
			*value++ = 0;
		rc = value ? set_key(fn, key, value) : -EINVAL;
		if (rc)
			pr_err("lab_pci: %s: key '%s', value '%s': error %d\n", place, key, value ?: "", rc);
	}
	if (!rc && lab_find(fn->domain, fn->bus, fn->devfn)) {
		pr_err("lab_pci: %s: described twice\n", place);
		rc = -EEXIST;
	}
	return rc;
}

int lab_add_function(const char *spec)
{
	struct lab_function *fn = kzalloc(sizeof(*fn), GFP_KERNEL);
	char *text = kstrdup(spec, GFP_KERNEL);
	int rc = fn && text ? parse_function(fn, text) : -ENOMEM;

	if (rc)
		kfree(fn);
	else
		list_add_tail(&fn->entry, &lab_functions);
	kfree(text);
	return rc;
}
