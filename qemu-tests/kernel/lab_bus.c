// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Virtual PCI functions inside the guest: root buses whose configuration space is memory. Made for tests of what an
 * init, a driver and a CDI generator see; no data ever moves through these functions.
 *   insmod lab_pci.ko fn=0000:40:00.0/10de:2330/030200,0000:41:00.0/15b3:1021/020700/vpd=SW_MNG [bar_base=] [mmio=]
 * Grammar of a function: lab_machine.c. Commands while it runs: lab_control.c.
 * mmio=ADDRESS gives BAR0 of each function on a root bus 16 MiB of RAM that `memmap=SIZE$ADDRESS` keeps free, with the
 * two identity registers that NVIDIA's real driver reads first.
 */
#include "lab_pci.h"

#include <linux/io.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <asm/pci.h>

#define MAX_FUNCTIONS	64
#define MMIO_SIZE	SZ_16M

static char *fn[MAX_FUNCTIONS];
static int fn_count;
static unsigned long bar_base = 0x1000000000UL, mmio;
module_param_array(fn, charp, &fn_count, 0444);
module_param(bar_base, ulong, 0444);
module_param(mmio, ulong, 0444);

struct lab_root {
	struct list_head entry;
	struct pci_sysdata sysdata;
	struct pci_bus *bus;
	struct resource numbers, window;
};

static LIST_HEAD(roots);
static struct resource registers = { .name = "lab_pci registers", .flags = IORESOURCE_MEM };

static bool is_secondary(int domain, int bus)
{
	struct lab_function *other;

	list_for_each_entry(other, &lab_functions, entry)
		if (other->domain == domain && other->secondary && other->secondary <= bus && bus <= other->subordinate)
			return true;
	return false;
}

static struct lab_root *find_root(int domain, int bus)
{
	struct lab_root *root;

	list_for_each_entry(root, &roots, entry)
		if (root->sysdata.domain == domain && root->numbers.start <= bus && bus <= root->numbers.end)
			return root;
	return NULL;
}

static int last_bus_below(int domain, int bus)
{
	struct lab_function *bridge;
	int last = bus;

	list_for_each_entry(bridge, &lab_functions, entry)
		if (bridge->domain == domain && bridge->bus >= bus && bridge->bus <= last && bridge->subordinate > last)
			last = bridge->subordinate;
	return last;
}

static int make_roots(void)
{
	struct lab_function *function;
	struct lab_root *root;

	list_for_each_entry(function, &lab_functions, entry) {
		if (is_secondary(function->domain, function->bus) || find_root(function->domain, function->bus))
			continue;
		root = kzalloc(sizeof(*root), GFP_KERNEL);
		if (!root)
			return -ENOMEM;
		root->sysdata.domain = function->domain;
		root->sysdata.node = NUMA_NO_NODE;
		root->numbers = (struct resource){
			.name = "lab_pci bus", .flags = IORESOURCE_BUS, .start = function->bus,
			.end = last_bus_below(function->domain, function->bus),
		};
		list_add_tail(&root->entry, &roots);
	}
	return 0;
}

/* Twice the sum leaves room for alignment; whole GiB keep the windows apart. */
static u64 window_size(struct lab_root *root)
{
	struct lab_function *function;
	u64 sum = 0;
	int i;

	list_for_each_entry(function, &lab_functions, entry)
		for (i = 0; i < LAB_BARS && find_root(function->domain, function->bus) == root; i++)
			sum += function->bars[i];
	return round_up(2 * sum + 1, SZ_1G);
}

static int make_windows(void)
{
	struct lab_root *root;
	u64 at = bar_base;
	int rc;

	list_for_each_entry(root, &roots, entry) {
		u64 size = window_size(root);

		at = round_up(at, roundup_pow_of_two(size));
		root->window = (struct resource){
			.name = "lab_pci window", .start = at, .end = at + size - 1,
			.flags = IORESOURCE_MEM | IORESOURCE_MEM_64 | IORESOURCE_PREFETCH,
		};
		rc = insert_resource(&iomem_resource, &root->window);
		if (rc) {
			root->window.flags = 0;
			pr_err("lab_pci: no room for %llu MiB of BARs at %#llx\n", size >> 20, at);
			return rc;
		}
		at += size;
	}
	return 0;
}

/* Below the reservation and not above it: a window over the reservation would leave no room for the BARs in it. */
static int claim_reserved(void)
{
	struct resource *other;

	for (other = iomem_resource.child; other; other = other->sibling)
		if (other->start <= registers.start && other->end >= registers.end && !(other->flags & IORESOURCE_BUSY) &&
		    !strcmp(other->name, "Reserved"))
			return request_resource(other, &registers);
	pr_err("lab_pci: %pR is not reserved; add memmap=%lluM$%#lx to the kernel command line\n", &registers,
	       (u64)resource_size(&registers) >> 20, mmio);
	return -EINVAL;
}

static bool has_registers(const struct lab_function *function)
{
	return function->bars[0] == MMIO_SIZE && !is_secondary(function->domain, function->bus);
}

/* The kernel never assigns addresses from reserved memory, so these are preset here and claimed after the scan. They are
 * written only where the memory is known to be nobody's: the kernel itself may lie at any address.
 */
static int preset_registers(void)
{
	struct lab_function *function;
	u64 at = mmio;
	int rc;

	list_for_each_entry(function, &lab_functions, entry)
		if (has_registers(function))
			at += MMIO_SIZE;
	if (at == mmio || !mmio)
		return 0;
	registers.start = mmio;
	registers.end = at - 1;
	rc = claim_reserved();
	if (rc)
		return rc;
	at = mmio;
	list_for_each_entry(function, &lab_functions, entry) {
		void *page;

		if (!has_registers(function))
			continue;
		page = memremap(at, PAGE_SIZE, MEMREMAP_WB);
		if (!page)
			return -ENOMEM;
		*(u32 *)page = function->boot0;
		*(u32 *)(page + 0xa00) = function->boot42;
		memunmap(page);
		*(u32 *)(function->config + PCI_BASE_ADDRESS_0) |= at;
		*(u32 *)(function->fresh + PCI_BASE_ADDRESS_0) |= at;
		at += MMIO_SIZE;
	}
	return 0;
}

static int finish_function(struct pci_dev *dev, void *unused)
{
	struct lab_function *function = lab_find(pci_domain_nr(dev->bus), dev->bus->number, dev->devfn);

	if (!function)
		return 0;
	if (mmio && registers.parent && dev->resource[0].start >= registers.start &&
	    dev->resource[0].end <= registers.end && pci_claim_resource(dev, 0))
		pci_warn(dev, "lab_pci: cannot claim BAR 0\n");
	if (function->numa != NUMA_NO_NODE && !node_online(function->numa))
		pci_warn(dev, "lab_pci: NUMA node %d is not online; give the machine that node\n", function->numa);
	else if (function->numa != NUMA_NO_NODE)
		set_dev_node(&dev->dev, function->numa);
	return 0;
}

static int scan_root(struct lab_root *root)
{
	LIST_HEAD(resources);

	pci_add_resource(&resources, &root->numbers);
	pci_add_resource(&resources, &root->window);
	if (registers.parent)
		pci_add_resource(&resources, &registers);
	root->bus = pci_create_root_bus(NULL, root->numbers.start, &lab_config_ops, &root->sysdata, &resources);
	if (!root->bus) {
		pci_free_resource_list(&resources);
		pr_err("lab_pci: bus %04x:%02x is taken by the machine itself\n", root->sysdata.domain,
		       (int)root->numbers.start);
		return -EBUSY;
	}
	pci_lock_rescan_remove();
	pci_scan_child_bus(root->bus);
	pci_walk_bus(root->bus, finish_function, NULL);
	pci_bus_size_bridges(root->bus);
	pci_bus_assign_resources(root->bus);
	pci_bus_add_devices(root->bus);
	pci_unlock_rescan_remove();
	return 0;
}

static void take_down(void)
{
	struct lab_function *function, *next_function;
	struct lab_root *root, *next_root;

	lab_control_exit();
	list_for_each_entry_safe(root, next_root, &roots, entry) {
		if (root->bus) {
			pci_lock_rescan_remove();
			pci_stop_root_bus(root->bus);
			pci_remove_root_bus(root->bus);
			pci_unlock_rescan_remove();
		}
		if (root->window.parent)
			remove_resource(&root->window);
		kfree(root);
	}
	if (registers.parent)
		remove_resource(&registers);
	list_for_each_entry_safe(function, next_function, &lab_functions, entry)
		kfree(function);
}

static int bring_up(void)
{
	struct lab_function *function;
	struct lab_root *root;
	int i, rc = lab_control_init();

	for (i = 0; i < fn_count && !rc; i++)
		rc = lab_add_function(fn[i]);
	list_for_each_entry(function, &lab_functions, entry)
		lab_build_config(function);
	rc = rc ?: make_roots() ?: make_windows() ?: preset_registers();
	list_for_each_entry(root, &roots, entry)
		rc = rc ?: scan_root(root);
	return rc;
}

static int __init lab_pci_init(void)
{
	int rc = bring_up();

	if (rc)
		take_down();
	return rc;
}

static void __exit lab_pci_exit(void)
{
	take_down();
}

module_init(lab_pci_init);
module_exit(lab_pci_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("virtual PCI functions served from memory, for tests");
