// SPDX-License-Identifier: Apache-2.0
/*
 * Does what a kernel with CONFIG_DM_INIT does at the end of its own start, for one that has device-mapper as a module:
 * reads dm-mod.create="..." and root=, rootfstype=, rootflags= from the kernel command line, makes the verity device,
 * mounts it read-only as the new root with devtmpfs on /dev, and becomes /sbin/init of it, or what lab.first= names.
 * Modules are loaded already (labinit). Only what Kata's runtime writes is understood: one device, one target.
 * Documentation/admin-guide/device-mapper/dm-init.rst: name,uuid,minor,flags,start length target arguments
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CREATE "dm-mod.create=\""
#define CONTROL "/dev/mapper/control"
#define PLACE "/lab/root"

enum { WAIT_MS = 5000, STEP_MS = 10 };

static void give_up(const char *what, const char *which)
{
	printf("rootstage: FATAL %s %s: %s\n", what, which, strerror(errno));
	fflush(stdout);
	reboot(RB_POWER_OFF);
	_exit(1);
}

/* The next field of a list that commas separate; the last field is all that is left. */
static char *field(char **rest, char *separators)
{
	char *found = strsep(rest, separators);

	if (!found) {
		errno = EINVAL;
		give_up("read", CREATE);
	}
	return found;
}

static void request(int control, unsigned long what, void *data, size_t size, const char *name, unsigned flags)
{
	struct dm_ioctl *head = data;

	head->version[0] = DM_VERSION_MAJOR;
	head->data_size = (unsigned)size;
	head->data_start = sizeof(*head);
	head->flags = flags;
	snprintf(head->name, sizeof(head->name), "%s", name);
	if (ioctl(control, what, data) < 0)
		give_up("device-mapper refuses", name);
}

/* "0 2048 verity 1 /dev/vda1 ..." as one target of a read-only table. */
static void load_table(int control, const char *name, char *table)
{
	static union {
		struct {
			struct dm_ioctl head;
			struct dm_target_spec target;
			char arguments[4096];
		};
		char all[8192];
	} load;

	load.target.sector_start = strtoull(field(&table, " "), NULL, 10);
	load.target.length = strtoull(field(&table, " "), NULL, 10);
	snprintf(load.target.target_type, sizeof(load.target.target_type), "%s", field(&table, " "));
	snprintf(load.arguments, sizeof(load.arguments), "%s", table);
	load.head.target_count = 1;
	request(control, DM_TABLE_LOAD, &load, sizeof(load), name, DM_READONLY_FLAG);
}

static void wait_for(const char *path)
{
	for (int waited = 0; access(path, F_OK) < 0; waited += STEP_MS) {
		if (waited >= WAIT_MS)
			give_up("wait for", path);
		sleep_ms(STEP_MS);
	}
}

/* Both partitions are named in the table; the kernel finds them after the disk. */
static void wait_for_disks(const char *table)
{
	char copy[4096];

	snprintf(copy, sizeof(copy), "%s", table);
	for (char *rest = copy, *word; (word = strsep(&rest, " "));)
		if (!strncmp(word, "/dev/", 5))
			wait_for(word);
}

static void make_device(char *text)
{
	char *name = field(&text, ",");

	field(&text, ",");	/* uuid */
	field(&text, ",");	/* minor */
	if (strcmp(field(&text, ","), "ro")) {
		errno = EROFS;
		give_up("make a device that is not read-only:", name);
	}
	wait_for(CONTROL);
	wait_for_disks(text);
	struct dm_ioctl plain = { 0 }, resume = { 0 };
	int control = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (control < 0)
		give_up("open", CONTROL);
	request(control, DM_DEV_CREATE, &plain, sizeof(plain), name, 0);
	load_table(control, name, text);
	request(control, DM_DEV_SUSPEND, &resume, sizeof(resume), name, 0);
	close(control);
}

/* The options of the file system: `ro` is a flag of mount, and every root here is mounted so. */
static void take_flags(const char *flags, char *into, size_t size)
{
	char copy[WORD_MAX];

	*into = '\0';
	snprintf(copy, sizeof(copy), "%s", flags);
	for (char *rest = copy, *option; (option = strsep(&rest, ","));)
		if (*option && strcmp(option, "ro"))
			snprintf(into + strlen(into), size - strlen(into), "%s%s", *into ? "," : "", option);
}

static void enter(const char *device, const char *type, const char *options)
{
	mkdir(PLACE, 0755);
	wait_for(device);
	if (mount(device, PLACE, type, MS_RDONLY, options) < 0)
		give_up("mount", device);
	if (mount("/dev", PLACE "/dev", NULL, MS_MOVE, NULL) < 0 || chdir(PLACE) < 0)
		give_up("enter", PLACE);
	if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		give_up("make the root of", device);
}

int main(int argc, char **argv)
{
	static char line[4096], first[WORD_MAX];
	char root[WORD_MAX], type[WORD_MAX], flags[WORD_MAX] = "", options[WORD_MAX];

	(void)argc;
	mkdir("/proc", 0555);
	if (mount("proc", "/proc", "proc", 0, NULL) < 0 || read_text("/proc/cmdline", line, sizeof(line)) < 0)
		give_up("read", "/proc/cmdline");
	umount("/proc");
	char *create = strstr(line, CREATE);

	if (!create || !word_value(line, "root", root, sizeof(root)) ||
	    !word_value(line, "rootfstype", type, sizeof(type))) {
		errno = ENOENT;
		give_up("find the root in", "the command line");
	}
	word_value(line, "rootflags", flags, sizeof(flags));
	argv[0] = word_value(line, "lab.first", first, sizeof(first)) ? first : (char *)"/sbin/init";
	take_flags(flags, options, sizeof(options));
	create += strlen(CREATE);
	create[strcspn(create, "\"")] = '\0';
	if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0)
		give_up("mount", "/dev");
	make_device(create);
	enter(root, type, options);
	execv(argv[0], argv);
	give_up("start", argv[0]);
}
