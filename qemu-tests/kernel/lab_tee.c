// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * What a guest of SEV-SNP shows of it: the platform device, /dev/sev-guest, and reports by the kernel's configfs-tsm. A
 * report has the caller's nonce and the HOST_DATA that the module was given, in their places; nothing is signed, and
 * nothing is encrypted. Needs configfs and tsm.
 *   insmod lab_tee.ko host_data=HEX
 */
#include <linux/err.h>
#include <linux/hex.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tsm.h>

#define REPORT_SIZE	1184
#define NONCE_AT	0x50
#define HOST_DATA_AT	0xC0
#define HOST_DATA_SIZE	32

static char *host_data = "";
module_param(host_data, charp, 0444);

static u8 started_with[HOST_DATA_SIZE];
static struct platform_device *device;

static int make_report(struct tsm_report *report, void *data)
{
	u8 *blob = kvzalloc(REPORT_SIZE, GFP_KERNEL);

	if (!blob)
		return -ENOMEM;
	memcpy(blob + NONCE_AT, report->desc.inblob, report->desc.inblob_len);
	memcpy(blob + HOST_DATA_AT, started_with, HOST_DATA_SIZE);
	report->outblob = blob;
	report->outblob_len = REPORT_SIZE;
	return 0;
}

static bool is_shown(int n)
{
	return n == TSM_REPORT_GENERATION || n == TSM_REPORT_PROVIDER;
}

static bool is_blob_shown(int n)
{
	return n == TSM_REPORT_INBLOB || n == TSM_REPORT_OUTBLOB;
}

static const struct tsm_ops ops = {
	.name = "sev_guest",
	.report_new = make_report,
	.report_attr_visible = is_shown,
	.report_bin_attr_visible = is_blob_shown,
};

static const struct file_operations nothing = { .owner = THIS_MODULE };
static struct miscdevice node = { .minor = MISC_DYNAMIC_MINOR, .name = "sev-guest", .fops = &nothing };

static int __init tee_init(void)
{
	int err;

	if (strlen(host_data) != 2 * HOST_DATA_SIZE || hex2bin(started_with, host_data, HOST_DATA_SIZE))
		return -EINVAL;
	device = platform_device_register_simple("sev-guest", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	err = misc_register(&node);
	if (err)
		goto no_node;
	err = tsm_register(&ops, NULL);
	if (err)
		goto no_reports;
	return 0;

no_reports:
	misc_deregister(&node);
no_node:
	platform_device_unregister(device);
	return err;
}

static void __exit tee_exit(void)
{
	tsm_unregister(&ops);
	misc_deregister(&node);
	platform_device_unregister(device);
}

module_init(tee_init);
module_exit(tee_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("an imitated SEV-SNP guest, for tests");
