// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The description of a machine, one text per function:
 *   0000:40:00.0/10de:2330/030200[/KEY=VALUE...]
 * Numbers of the first three parts are hexadecimal, as in sysfs. Keys: lab_keys.c.
 */
#include "lab_pci.h"
#include "lab_mailbox.h"

#include <linux/slab.h>
#include <linux/string.h>

LIST_HEAD(lab_functions);

struct lab_function *lab_find(int domain, int bus, int devfn)
{
	struct lab_function *fn;

	list_for_each_entry(fn, &lab_functions, entry)
		if (fn->domain == domain && fn->bus == bus && fn->devfn == devfn)
			return fn;
	return NULL;
}

static void set_defaults(struct lab_function *fn, bool gpu, unsigned int class)
{
	bool infiniband = class == LAB_CLASS_INFINIBAND, network = infiniband || class == PCI_CLASS_NETWORK_ETHERNET;
	u8 *mailbox = fn->config + LAB_MAILBOX;

	fn->numa = NUMA_NO_NODE;
	fn->has_flr = true;
	fn->port = PCI_EXP_TYPE_ROOT_PORT;
	fn->link_speed = 5;
	fn->link_width = 16;
	fn->config[PCI_INTERRUPT_LINE] = 11;
	fn->config[PCI_INTERRUPT_PIN] = 1;	/* nvidia.ko refuses a function without interrupt */
	fn->bars[0] = gpu ? 16 << 20 : 1 << 20;
	fn->bars[1] = gpu ? 256 << 20 : 0;
	fn->bars[2] = gpu ? 32 << 20 : 0;
	fn->boot0 = 0x180000a1;
	fn->boot42 = 0x180a1000;
	*(u32 *)(mailbox + LAB_MINOR) = LAB_MINOR_NEXT;
	*(u32 *)(mailbox + LAB_PORT_MASK) = infiniband ? 0xa651e848 : network ? 0x04010000 : 0;
	*(u32 *)(mailbox + LAB_PORT_STATE) = network ? 4 : 0;
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
	gpu = vendor == PCI_VENDOR_ID_NVIDIA && code >> 16 == PCI_BASE_CLASS_DISPLAY;
	lab_put16(fn, PCI_VENDOR_ID, vendor, 0);
	lab_put16(fn, PCI_DEVICE_ID, device, 0);
	lab_put32(fn, PCI_CLASS_REVISION, code << 8 | 0xa1, 0);
	lab_put16(fn, PCI_SUBSYSTEM_VENDOR_ID, vendor, 0);
	lab_put16(fn, PCI_SUBSYSTEM_ID, gpu ? 0x16c1 : device, 0);
	set_defaults(fn, gpu, code >> 8);
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
		rc = value ? lab_set_key(fn, key, value) : -EINVAL;
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
