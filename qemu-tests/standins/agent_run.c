// SPDX-License-Identifier: Apache-2.0
/*
 * Starts programs from below /run, as kata-agent does: the pause container of an image pulled in the guest has its root
 * there, a ConfigMap's script is copied there and bound into a container, and so is an emptyDir of the guest's memory.
 * The program is this one; a container of theirs would differ in namespaces, not in what execve(2) allows.
 */
#define _GNU_SOURCE
#include "agent.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE "/run/kata-containers"
#define SHARED STATE "/shared/containers"
#define PAUSE_ROOT STATE "/lab/rootfs"
#define SCRIPT SHARED "/lab-configmap"
#define LOCAL SHARED "/lab/rootfs/local/empty"
#define VOLUME "/tmp/lab-volume"
#define SELF "/usr/bin/kata-agent"

static bool copy_self(const char *path)
{
	int from = open(SELF, O_RDONLY | O_CLOEXEC), into = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t sent = -1;

	while (from >= 0 && into >= 0 && (sent = sendfile(into, from, NULL, 1 << 20)) > 0)
		;
	if (from >= 0)
		close(from);
	if (into >= 0)
		close(into);
	return sent == 0;
}

static void run_one(const char *what, const char *root, const char *path)
{
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		if (root && (chroot(root) < 0 || chdir("/") < 0))
			_exit(120);
		execl(path, path, RAN, NULL);
		_exit(errno < 120 ? errno : 121);	/* 13: EACCES, which is what noexec gives */
	}
	tell("agent: ran %s status=%d\n", what, child < 0 ? -1 : waitpid_retry(child));
}

static bool bind(const char *source, const char *target)
{
	return make_folders(target, 0755) && mount(source, target, NULL, MS_BIND, NULL) == 0;
}

void run_below_run(void)
{
	bool made = make_folders(PAUSE_ROOT, 0755) && copy_self(PAUSE_ROOT "/pause");

	made = made && make_folders(SHARED, 0755) && write_text(SCRIPT, "#!" SELF " " RAN "\n", 0755);
	made = made && make_folders(LOCAL, 0777) && copy_self(LOCAL "/program") && bind(LOCAL, VOLUME);
	if (!made) {
		tell("agent: ran nothing: %s\n", strerror(errno));
		return;
	}
	run_one("pause", PAUSE_ROOT, "/pause");
	run_one("script", NULL, SCRIPT);
	run_one("program", NULL, VOLUME "/program");
	umount2(VOLUME, MNT_DETACH);
}
