// SPDX-License-Identifier: Apache-2.0
/* What the agent was given by whoever started it. Reads only; the grammar is at the top of agent.c. */
#include "agent.h"
#include "common.h"

#include <ctype.h>
#include <dirent.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;

static char text[TEXT_MAX];

static void report_process(void)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
	mode_t mask = umask(0);

	umask(mask);
	tell("agent: pid=%d ppid=%d pgid=%d sid=%d uid=%d gid=%d\n", getpid(), getppid(), getpgrp(), getsid(0), getuid(),
	       getgid());
	tell("agent: exe %.*s\n", length > 0 ? (int)length : 1, length > 0 ? path : "?");
	tell("agent: cwd %s\n", getcwd(path, sizeof(path)) ? path : "?");
	tell("agent: umask %03o\n", mask);
	for (char **entry = environ; *entry; entry++)
		tell("agent: env %s\n", *entry);
}

static void report_limits(void)
{
	static const struct {
		const char *name;
		int resource;
	} limits[] = {
		{ "nofile", RLIMIT_NOFILE }, { "core", RLIMIT_CORE },   { "nproc", RLIMIT_NPROC }, { "memlock", RLIMIT_MEMLOCK },
		{ "stack", RLIMIT_STACK },   { "fsize", RLIMIT_FSIZE }, { "as", RLIMIT_AS },
	};

	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		struct rlimit limit;

		getrlimit((__rlimit_resource_t)limits[i].resource, &limit);
		tell("agent: limit %s soft=%ld hard=%ld\n", limits[i].name, (long)limit.rlim_cur, (long)limit.rlim_max);
	}
}

static void report_descriptors(void)
{
	char path[512], target[4096];
	DIR *folder = opendir("/proc/self/fd");

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		if (!isdigit((unsigned char)*entry->d_name) || atoi(entry->d_name) == dirfd(folder))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		ssize_t length = readlink(path, target, sizeof(target) - 1);

		tell("agent: fd %s -> %.*s\n", entry->d_name, length > 0 ? (int)length : 1, length > 0 ? target : "?");
	}
	if (folder)
		closedir(folder);
	else
		tell("agent: fd unknown: no /proc\n");
}

/* One field of /proc/self/status, or "?". */
static const char *status_field(const char *name, char *into, size_t size)
{
	char *at = read_text("/proc/self/status", text, sizeof(text)) < 0 ? NULL : strstr(text, name);

	snprintf(into, size, "?");
	if (at)
		sscanf(at + strlen(name), " %63s", into);
	return into;
}

static void report_signals(void)
{
	char a[64], b[64], c[64];

	tell("agent: signals blocked=%s ignored=%s caught=%s\n", status_field("SigBlk:", a, sizeof(a)),
	       status_field("SigIgn:", b, sizeof(b)), status_field("SigCgt:", c, sizeof(c)));
	tell("agent: capabilities effective=%s bounding=%s no_new_privs=%s\n", status_field("CapEff:", a, sizeof(a)),
	       status_field("CapBnd:", b, sizeof(b)), status_field("NoNewPrivs:", c, sizeof(c)));
}

/* Line of mountinfo: id parent major:minor root target options [optional...] - type source superoptions */
static void report_mounts(void)
{
	if (read_text("/proc/self/mountinfo", text, sizeof(text)) < 0)
		tell("agent: mount unknown: no /proc\n");
	else
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
			char target[1024], options[1024], type[256], source[1024];
			char *tail = strstr(line, " - ");

			if (tail && sscanf(line, "%*s %*s %*s %*s %1023s %1023s", target, options) == 2 &&
			    sscanf(tail, " - %255s %1023s", type, source) == 2)
				tell("agent: mount %s %s %s %s\n", target, type, source, options);
		}
}

/* A one-line file, or the lines of a longer one, each under the same topic. */
static void report_file(const char *topic, const char *path)
{
	if (read_text(path, text, sizeof(text)) < 0) {
		tell("agent: %s unknown: %m\n", topic);
		return;
	}
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		tell("agent: %s %s\n", topic, line);
}

static void report_node(const char *path)
{
	struct stat node;
	char target[4096];

	if (lstat(path, &node) < 0) {
		tell("agent: dev %s absent\n", path);
	} else if (S_ISLNK(node.st_mode)) {
		ssize_t length = readlink(path, target, sizeof(target) - 1);

		tell("agent: dev %s -> %.*s\n", path, length > 0 ? (int)length : 1, length > 0 ? target : "?");
	} else if (S_ISCHR(node.st_mode)) {
		tell("agent: dev %s char %u:%u mode %04o\n", path, major(node.st_rdev), minor(node.st_rdev), node.st_mode & 07777);
	} else {
		tell("agent: dev %s other mode %04o\n", path, node.st_mode & 07777);
	}
}

static void report_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0 && request.ifr_flags & IFF_UP;

	tell("agent: loopback %s\n", up ? "up" : "down");
	if (fd >= 0)
		close(fd);
}

static void report_proc(void)
{
	char self[32] = "";
	DIR *folder = opendir("/proc");
	int processes = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));)
		processes += isdigit((unsigned char)*entry->d_name) != 0;
	if (folder)
		closedir(folder);
	bool own = readlink("/proc/self", self, sizeof(self) - 1) > 0 && atoi(self) == getpid();

	tell("agent: proc processes=%d own=%s\n", processes, own ? "yes" : "no");
}

static void report_ldcache(void)
{
	struct stat cache;

	if (stat("/etc/ld.so.cache", &cache) == 0)
		tell("agent: ldcache /etc/ld.so.cache bytes=%ld\n", (long)cache.st_size);
	else
		tell("agent: ldcache absent\n");
}

void report_facts(void)
{
	static const char *const nodes[] = { "/dev/fd",   "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/core", "/dev/ptmx",
					     "/dev/null", "/dev/log",   "/dev/kmsg",   "/dev/console", "/dev/vsock" };
	char hostname[256] = "?";

	report_process();
	report_limits();
	report_descriptors();
	report_file("oom_score_adj", "/proc/self/oom_score_adj");
	report_signals();
	report_mounts();
	report_file("cgroup", "/proc/self/cgroup");
	report_file("modules_disabled", "/proc/sys/kernel/modules_disabled");
	gethostname(hostname, sizeof(hostname) - 1);
	tell("agent: hostname %s\n", hostname);
	for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++)
		report_node(nodes[i]);
	report_ldcache();
	report_loopback();
	report_proc();
}
