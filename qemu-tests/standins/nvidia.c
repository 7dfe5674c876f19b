// SPDX-License-Identifier: Apache-2.0
/*
 * NVIDIA's programs, imitated as far as an init can tell them apart: one binary that acts by the name it is started
 * as. None of it is NVIDIA's code and none of it computes anything. Exit status, syslog lines, sockets, PID files and
 * lies are NVIDIA's; what was measured on the real programs is in docs/virtual-hardware.md.
 *
 * /lab/faults, one `PROGRAM.FAULT=VALUE` a line, PROGRAM as installed (nvidia-persistenced, nvidia-smi, ...):
 *   slow_ms=N         waits N ms first                  hang=1            never gets any further
 *   fail=N            complains and ends with status N  lie=TEXT          prints TEXT as an error and ends with 0
 *   flood=N           N lines to syslog first           crash_after_ms=N  a daemon dies of SIGSEGV N ms after set-up
 *   exit_after_ms=N   a daemon ends N ms after set-up   exit_status=N     ... with this status (0)
 * Each program's own faults stand at the top of its source. /lab/started, where it exists, gets a line per start.
 */
#include "nvidia.h"
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

const char *program;

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} programs[] = {
	{ "nvidia-persistenced", persistenced_main }, { "nv-fabricmanager", fabricmanager_main },
	{ "nvlsm", nvlsm_main },		      { "nv-hostengine", hostengine_main },
	{ "dcgm-exporter", exporter_main },	      { "nvidia-smi", smi_main },
	{ "nvidia-ctk", ctk_main },
};

void complain(const char *format, ...)
{
	char text[1024];
	va_list values;

	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	fprintf(stderr, "%s\n", text);
	syslog(LOG_ERR, "%s", text);
}

bool listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	return bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 5) == 0;
}

/* The kernel lets a socket bind to 127.0.0.1 also while lo is down; nobody could ever reach it. */
static bool is_loopback_up(int fd)
{
	struct ifreq request = { .ifr_name = "lo" };

	if (ioctl(fd, SIOCGIFFLAGS, &request) == 0 && request.ifr_flags & IFF_UP)
		return true;
	errno = ENETUNREACH;
	return false;
}

bool listen_on_loopback(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return is_loopback_up(fd) && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 5) == 0;
}

const char *option(int argc, char **argv, const char *name)
{
	size_t length = strlen(name);

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], name) && i + 1 < argc)
			return argv[i + 1];
		if (!strncmp(argv[i], name, length) && argv[i][length] == '=')
			return argv[i] + length + 1;
	}
	return NULL;
}

bool has_option(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return false;
}

/* As the real daemons do, say goodbye: the order in which they are asked can then be read in the log. */
static void await_stop(void)
{
	struct sigaction own;
	sigset_t stop;
	int number;

	if (sigaction(SIGTERM, NULL, &own) == 0 && own.sa_handler != SIG_DFL)
		for (;;)
			pause();	/* it has its own way to go */
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	sigwait(&stop, &number);
	syslog(LOG_INFO, "stopped by SIGTERM");
	exit(0);
}

void stay_forever(void)
{
	long ms, status = 0;

	if (fault_number(program, "crash_after_ms", &ms)) {
		sleep_ms(ms);
		crash();
	}
	if (fault_number(program, "exit_after_ms", &ms)) {
		fault_number(program, "exit_status", &status);
		sleep_ms(ms);
		exit((int)status);
	}
	await_stop();
}

void suffer_early_faults(void)
{
	char text[WORD_MAX];
	long value;

	if (fault_number(program, "flood", &value))
		for (long i = 1; i <= value; i++)
			syslog(LOG_INFO, "noise %ld of %ld", i, value);
	if (fault_number(program, "slow_ms", &value))
		sleep_ms(value);
	if (fault_value(program, "lie", text, sizeof(text))) {
		complain("%s", text);
		exit(0);
	}
	if (fault_number(program, "fail", &value)) {
		complain("%s: told to fail with status %ld", program, value);
		exit((int)value);
	}
	if (fault_number(program, "hang", &value) && value)
		for (;;)
			pause();
}

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
