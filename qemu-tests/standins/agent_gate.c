// SPDX-License-Identifier: Apache-2.0
/*
 * What a container would come to that has every right and opens a GPU's node itself: a process of this agent in a cgroup
 * of its own, where no runtime has set a device rule.
 */
#include "agent.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUP "/sys/fs/cgroup/lab-gate"

static void try_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	tell("agent: gate %s %s\n", path, fd < 0 ? strerror(errno) : "opened");
	if (fd >= 0)
		close(fd);
}

void try_gate(void)
{
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		if (mkdir(GROUP, 0755) < 0 || !write_text(GROUP "/cgroup.procs", "0", 0))
			tell("agent: gate: no cgroup: %s\n", strerror(errno));
		else
			try_open("/dev/nvidia0");
		try_open("/dev/null");
		fflush(stdout);
		_exit(0);
	}
	if (child > 0)
		waitpid_retry(child);
}
