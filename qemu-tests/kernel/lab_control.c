// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * /proc/lab-pci shows the functions and takes commands, one a write:
 *   off BDF | on BDF | vpd-error BDF 0|1 | set BDF NAME NUMBER (a number of the mailbox)
 */
#include "lab_pci.h"
#include "lab_mailbox.h"

#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

static int show(struct seq_file *out, void *unused)
{
	struct lab_function *f;

	list_for_each_entry(f, &lab_functions, entry) {
		u8 *mailbox = f->config + LAB_MAILBOX;

		seq_printf(out, "%04x:%02x:%02x.%x %04x:%04x bus=%s vpd=%s attached=%u resets=%u attach_ms=%u faults=%#x cc=%u\n",
			   f->domain, f->bus, PCI_SLOT(f->devfn), PCI_FUNC(f->devfn), *(u16 *)f->config,
			   *(u16 *)(f->config + PCI_DEVICE_ID), f->off_bus ? "off" : "on",
			   !f->vpd_length ? "none" : f->vpd_error ? "error" : "good",
			   *(u32 *)(mailbox + LAB_STATE) & LAB_STATE_ATTACHED, *(u32 *)(mailbox + LAB_RESETS),
			   *(u32 *)(mailbox + LAB_ATTACH_MS), *(u32 *)(mailbox + LAB_FAULTS), *(u32 *)(mailbox + LAB_CC));
	}
	return 0;
}

static int obey(struct lab_function *function, const char *verb, const char *name, u32 value)
{
	u32 *number;

	if (!strcmp(verb, "off") || !strcmp(verb, "on")) {
		function->off_bus = verb[1] == 'f';
		return 0;
	}
	if (!strcmp(verb, "vpd-error"))
		return kstrtobool(name, &function->vpd_error);
	number = strcmp(verb, "set") ? NULL : lab_mailbox_number(function, name);
	if (!number)
		return -EINVAL;
	*number = value;
	return 0;
}

static ssize_t command(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	unsigned int domain, bus, slot, func, value = 0;
	char text[128], verb[16], name[32] = "";
	struct lab_function *function;
	int rc;

	if (size >= sizeof(text) || copy_from_user(text, from, size))
		return -EINVAL;
	text[size] = 0;
	if (sscanf(text, "%15s %x:%x:%x.%x %31s %i", verb, &domain, &bus, &slot, &func, name, &value) < 5)
		return -EINVAL;
	function = lab_find(domain, bus, PCI_DEVFN(slot, func));
	if (!function)
		return -ENODEV;
	rc = obey(function, verb, name, value);
	return rc ?: size;
}

static int open_control(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static const struct proc_ops control_ops = {
	.proc_open = open_control, .proc_read = seq_read, .proc_lseek = seq_lseek,
	.proc_release = single_release, .proc_write = command,
};

int lab_control_init(void)
{
	return proc_create("lab-pci", 0600, NULL, &control_ops) ? 0 : -ENOMEM;
}

void lab_control_exit(void)
{
	remove_proc_entry("lab-pci", NULL);
}
