// SPDX-License-Identifier: Apache-2.0
/*
 * First program of a lab boot (rdinit=/lab/init): loads the virtual hardware, starts the list of events if there is
 * one, then becomes the init under test. It leaves the machine as the kernel handed it over: no mount, no file, no open
 * descriptor, same arguments and environment. In /lab it makes the node of the kernel's log, where the lab's programs tell
 * what they find (common.h). All it reads lies in /lab:
 *   /lab/modules   one module a line: path, then its parameters     (optional)
 *   /lab/events    commands for /lab/prober, run beside the init     (optional)
 *   /lab/target    path of the init under test                      (optional; /init)
 *   /lab/clock     if it exists, one line on the console: `labinit: clock start=US exec=US cpu=US`, by the boot
 *                  clock; cpu: what PID 1 had used by then, most of it the kernel's own start
 *   /lab/devtmpfs  if it exists, /dev is mounted, as a kernel does that boots from a disk: some inits count on it
 *   /lab/enforce   if it exists, the kernel takes signed modules only, from after the virtual hardware on
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PROBER LAB_DIR "/prober"
#define EVENTS LAB_DIR "/events"

static void give_up(const char *what, const char *which)
{
	tell("labinit: FATAL %s %s: %s\n", what, which, strerror(errno));
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void open_log(void)
{
	enum { MEMORY_MAJOR = 1, KMSG_MINOR = 11 };

	if (mknod(LAB_LOG, S_IFCHR | 0600, makedev(MEMORY_MAJOR, KMSG_MINOR)) < 0 && errno != EEXIST)
		give_up("make", LAB_LOG);
}

static void load_module(char *line)
{
	char *parameters = line + strcspn(line, " ");

	if (*parameters)
		*parameters++ = '\0';
	int fd = open(line, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		give_up("open", line);
	if (syscall(SYS_finit_module, fd, parameters, 0) < 0)
		give_up("load", line);
	close(fd);
}

static void load_modules(void)
{
	static char list[TEXT_MAX];

	if (read_text(LAB_DIR "/modules", list, sizeof(list)) < 0)
		return;
	for (char *line = list, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (*line)
			load_module(line);
	}
}

static void mount_devices(void)
{
	if (access(LAB_DIR "/devtmpfs", F_OK) == 0 && mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0)
		give_up("mount", "/dev");
}

/* What module.sig_enforce=1 does on the kernel command line, but for the lab's own modules, which nobody has signed. */
static void enforce_signatures(void)
{
	if (access(LAB_DIR "/enforce", F_OK) < 0)
		return;
	if (mount("sysfs", LAB_DIR, "sysfs", 0, NULL) < 0)
		give_up("mount sysfs on", LAB_DIR);
	int fd = open(LAB_DIR "/module/module/parameters/sig_enforce", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		give_up("write", "sig_enforce");
	close(fd);
	if (umount(LAB_DIR) < 0)
		give_up("unmount", LAB_DIR);
}

/* A grandchild: when the init under test starts, it has an orphan, as it may at any time, but no child of its own. */
static void start_events(void)
{
	if (access(EVENTS, R_OK) < 0)
		return;
	pid_t child = fork();

	if (child == 0) {
		setsid();
		if (fork() == 0) {
			execl(PROBER, PROBER, EVENTS, NULL);
			give_up("start", PROBER);
		}
		_exit(0);
	}
	if (child < 0 || waitpid_retry(child) < 0)
		give_up("fork for", EVENTS);
}

int main(int argc, char **argv)
{
	static char target[4096] = "/init";
	long start = boot_us();

	(void)argc;
	if (read_text(LAB_DIR "/target", target, sizeof(target)) >= 0)
		target[strcspn(target, "\n")] = '\0';
	open_log();
	mount_devices();
	load_modules();
	enforce_signatures();
	start_events();
	if (access(LAB_DIR "/clock", F_OK) == 0) {
		struct rusage used;

		getrusage(RUSAGE_SELF, &used);
		tell("labinit: clock start=%ld exec=%ld cpu=%ld\n", start, boot_us(),
		       (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec + used.ru_stime.tv_usec);
		fflush(stdout);
	}
	argv[0] = target;
	execv(target, argv);
	give_up("start", target);
}
