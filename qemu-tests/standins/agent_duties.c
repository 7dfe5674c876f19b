// SPDX-License-Identifier: Apache-2.0
/*
 * The first steps of kata-agent as PID 1, in its order: mounts that are missing, cgroup2, /dev/ptmx, session and
 * terminal, host name. A step that kata-agent insists on ends the process here too (status 70); the cgroup v1 tree is
 * not imitated.
 */
#include "agent.h"
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_DUTY = 70 };

struct wanted_mount {
	const char *type, *source, *target, *data;
	unsigned long flags;
};

static const struct wanted_mount mounts[] = {
	{ "proc", "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs", "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "devtmpfs", "dev", "/dev", NULL, MS_NOSUID },
	{ "tmpfs", "tmpfs", "/dev/shm", NULL, MS_NOSUID | MS_NODEV },
	{ "devpts", "devpts", "/dev/pts", NULL, MS_NOSUID | MS_NOEXEC },
	{ "tmpfs", "tmpfs", "/run", NULL, MS_NOSUID | MS_NODEV },
};

static const struct wanted_mount cgroup2 = { "cgroup2", "cgroup2", "/sys/fs/cgroup", "nsdelegate",
					     MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME };

/* Type of the visible (last) mount on a place; empty when there is none. */
static const char *mounted_type(const char *target)
{
	static char table[TEXT_MAX], type[256];
	char place[1024], kind[256];

	*type = '\0';
	if (read_text("/proc/mounts", table, sizeof(table)) < 0)
		return type;
	for (char *line = strtok(table, "\n"); line; line = strtok(NULL, "\n"))
		if (sscanf(line, "%*s %1023s %255s", place, kind) == 2 && !strcmp(place, target))
			strcpy(type, kind);
	return type;
}

static bool is_mounted(const char *target, const char *type)
{
	return !strcmp(mounted_type(target), type);
}

/* /dev and the host name may be shared with a developer's own machine when this runs in namespaces there. */
static bool is_guest(const char *duty)
{
	const char *type = mounted_type("/");

	if (!strcmp(type, "rootfs") || !strcmp(type, "erofs"))
		return true;
	tell("agent: duty %s refused: / is %s, not a guest's root\n", duty, *type ? type : "unknown");
	return false;
}

static void fail_duty(const char *duty)
{
	tell("agent: duty %s failed %s\n", duty, strerror(errno));
	exit(EXIT_DUTY);
}

static void mount_missing(const struct wanted_mount *wanted)
{
	char duty[WORD_MAX];

	snprintf(duty, sizeof(duty), "mount %s", wanted->target);
	if (is_mounted(wanted->target, wanted->type)) {
		tell("agent: duty %s present\n", duty);
		return;
	}
	make_folders(wanted->target, 0755);
	if (mount(wanted->source, wanted->target, wanted->type, wanted->flags, wanted->data) == 0)
		tell("agent: duty %s done\n", duty);
	else if (!strcmp(wanted->source, "dev"))	/* the one mount whose failure kata-agent forgives */
		tell("agent: duty %s forgiven %s\n", duty, strerror(errno));
	else
		fail_duty(duty);
}

static void mount_cgroups(void)
{
	char value[WORD_MAX];
	bool v1_off = cmdline_value("cgroup_no_v1", value, sizeof(value)) && !strcmp(value, "all");
	bool unified = cmdline_value("systemd.unified_cgroup_hierarchy", value, sizeof(value)) &&
		       (!strcmp(value, "1") || !strcasecmp(value, "true"));

	if (v1_off || unified)
		mount_missing(&cgroup2);
	else
		tell("agent: duty mount /sys/fs/cgroup skipped: the v1 tree is not imitated; pass cgroup_no_v1=all\n");
}

static void link_ptmx(void)
{
	if (!is_guest("ptmx"))
		return;
	if (unlink("/dev/ptmx") < 0 || symlink("/dev/pts/ptmx", "/dev/ptmx") < 0)
		fail_duty("ptmx");
	tell("agent: duty ptmx done\n");
}

static void take_terminal(void)
{
	if (setsid() < 0)
		fail_duty("setsid");
	tell("agent: duty setsid done\n");
	if (ioctl(STDIN_FILENO, TIOCSCTTY, 1) == 0)
		tell("agent: duty terminal done\n");
	else	/* kata-agent does not look at this result */
		tell("agent: duty terminal forgiven %s\n", strerror(errno));
}

static void set_hostname(void)
{
	char name[WORD_MAX] = "localhost";

	if (!is_guest("hostname"))
		return;
	if (read_text("/etc/hostname", name, sizeof(name)) < 0)
		strcpy(name, "localhost");
	name[strcspn(name, " \t\n")] = '\0';
	if (sethostname(name, strlen(name)) == 0)
		tell("agent: duty hostname done %s\n", name);
	else
		tell("agent: duty hostname forgiven %s\n", strerror(errno));
}

static void report_results(void)
{
	bool mounted = is_mounted("/sys/fs/cgroup", "cgroup2");
	bool writable = mounted && mkdir("/sys/fs/cgroup/lab-agent", 0755) == 0;

	if (writable)
		rmdir("/sys/fs/cgroup/lab-agent");
	tell("agent: cgroup2 mounted=%s writable=%s\n", mounted ? "yes" : "no", writable ? "yes" : "no");
	tell("agent: shm mounted=%s\n", is_mounted("/dev/shm", "tmpfs") ? "yes" : "no");
	tell("agent: pts mounted=%s\n", is_mounted("/dev/pts", "devpts") ? "yes" : "no");
}

void do_init_duties(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++)
		mount_missing(&mounts[i]);
	mount_cgroups();
	link_ptmx();
	take_terminal();
	setenv("PATH", "/bin:/sbin/:/usr/bin/:/usr/sbin/", 1);
	set_hostname();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	report_results();
}
