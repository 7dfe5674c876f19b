// SPDX-License-Identifier: Apache-2.0
/* What changes the machine, and what only waits. */
#include "prober.h"
#include "common.h"

#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void do_mount(const struct line *line)
{
	make_folders(word(line, 2), 0755);
	report("mount", word(line, 2), mount(word(line, 1), word(line, 2), word(line, 1), 0, NULL) == 0, -1);
}

void do_shrink(const struct line *line)
{
	char size[64];

	snprintf(size, sizeof(size), "size=%s", word(line, 2));
	report("shrink", word(line, 1), mount("", word(line, 1), "", MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, size) == 0, -1);
}

void do_insmod(const struct line *line)
{
	int fd = open(word(line, 1), O_RDONLY | O_CLOEXEC);
	long start = now_ms();

	bool loaded = fd >= 0 && syscall(SYS_finit_module, fd, line->rest, 0) == 0;

	report("insmod", word(line, 1), loaded, now_ms() - start);
	if (fd >= 0)
		close(fd);
}

void do_rmmod(const struct line *line)
{
	report("rmmod", word(line, 1), syscall(SYS_delete_module, word(line, 1), O_NONBLOCK) == 0, -1);
}

void do_loopback(const struct line *line)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)line;
	report("loopback", "lo", fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0, -1);
	if (fd >= 0)
		close(fd);
}

void do_rename(const struct line *line)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", word(line, 1));
	snprintf(request.ifr_newname, sizeof(request.ifr_newname), "%s", word(line, 2));
	report("rename", word(line, 1), fd >= 0 && ioctl(fd, SIOCSIFNAME, &request) == 0, -1);
	if (fd >= 0)
		close(fd);
}

void do_sleep(const struct line *line)
{
	sleep_ms(atol(word(line, 1)));
}

/* A disk's node comes a moment before the disk, and opens with ENXIO until then. */
static bool is_there(const char *path)
{
	struct stat found;

	if (stat(path, &found) < 0)
		return false;
	if (!S_ISBLK(found.st_mode))
		return true;

	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && close(fd) == 0;
}

void do_wait(const struct line *line)
{
	long start = now_ms(), limit = line->count > 2 ? atol(word(line, 2)) : 10000;
	bool there;

	while (!(there = is_there(word(line, 1))) && now_ms() - start < limit)
		sleep_ms(10);
	report("wait", word(line, 1), there, now_ms() - start);
}

void do_say(const struct line *line)
{
	tell("probe: say %s %s\n", word(line, 1), line->rest);
}

void do_poweroff(const struct line *line)
{
	(void)line;
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
}
