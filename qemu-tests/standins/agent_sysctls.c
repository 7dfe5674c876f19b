// SPDX-License-Identifier: Apache-2.0
/* What the kernel is set to, a line for each value: all of /proc/sys that bears on the whole machine. */
#define _GNU_SOURCE
#include "agent.h"
#include "common.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FOLDER "/proc/sys/"

static int report_sysctl(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	char name[WORD_MAX], value[TEXT_MAX / 64];

	(void)where;
	if (kind != FTW_F || !(status->st_mode & 0444) || read_text(path, value, sizeof(value)) < 0)
		return 0;
	value[strcspn(value, "\n")] = '\0';
	snprintf(name, sizeof(name), "%s", path + strlen(FOLDER));
	for (char *at = name; (at = strchr(at, '/'));)
		*at = '.';
	tell("agent: sysctl %s=%s\n", name, value);
	return 0;
}

void report_sysctls(void)
{
	static const char *const folders[] = { "kernel", "fs", "vm", "net/core", "dev/tty" };

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		char path[WORD_MAX];

		snprintf(path, sizeof(path), FOLDER "%s", folders[i]);
		nftw(path, report_sysctl, 8, FTW_PHYS);
	}
}
