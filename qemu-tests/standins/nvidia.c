// SPDX-License-Identifier: Apache-2.0
/*
 * NVIDIA's programs, imitated as far as an init can tell them apart: one binary that acts by the name it is started
 * as. None of it is NVIDIA's code and none of it computes anything. Exit status, syslog lines, sockets, PID files and
 * lies are NVIDIA's; what was measured on the real programs is in docs/virtual-hardware.md.
 *
 * /lab/faults, one `PROGRAM.FAULT=VALUE` a line, PROGRAM as installed (nvidia-persistenced, nvidia-smi, ...):
 *   slow_ms=N         waits N ms first                  hang=1            never gets any further
 *   after=PATH        waits until PATH exists first
 *   fail=N            complains and ends with status N  lie=TEXT          prints TEXT as an error and ends with 0
 *   flood=N           N lines to syslog first           crash_after_ms=N  a daemon dies of SIGSEGV N ms after set-up
 *   exit_after_ms=N   a daemon ends N ms after set-up   exit_status=N     ... with this status (0)
 * Each program's own faults stand at the top of its source. /lab/started, where it exists, gets a line per start.
 */
#include "nvidia.h"
#include "common.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} programs[] = {
	{ "nvidia-persistenced", persistenced_main }, { "nv-fabricmanager", fabricmanager_main },
	{ "nvlsm", nvlsm_main },		      { "nv-hostengine", hostengine_main },
	{ "dcgm-exporter", exporter_main },	      { "nvidia-smi", smi_main },
	{ "nvidia-ctk", ctk_main },
};

static void record_start(int argc, char **argv)
{
	char line[4096];
	int at = snprintf(line, sizeof(line), "%ld %d", now_ms(), getpid());
	int fd = open(LAB_DIR "/started", O_WRONLY | O_APPEND | O_CLOEXEC);

	for (int i = 0; i < argc && at < (int)sizeof(line) - 1; i++)
		at += snprintf(line + at, sizeof(line) - (size_t)at, " %s", argv[i]);
	if (at >= (int)sizeof(line) - 1)
		at = (int)sizeof(line) - 2;
	line[at++] = '\n';
	if (fd >= 0 && write(fd, line, (size_t)at) == at)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');

	program = slash ? slash + 1 : argv[0];
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++)
		if (!strcmp(programs[i].name, program)) {
			record_start(argc, argv);
			return programs[i].main(argc, argv);
		}
	fprintf(stderr, "%s: no such stand-in; start it as one of:", program);
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++)
		fprintf(stderr, " %s", programs[i].name);
	fputc('\n', stderr);
	return 64;
}
