// SPDX-License-Identifier: Apache-2.0
/* What NVIDIA's programs have in common: options, sockets, complaints, the faults of /lab/faults and the way they end. */
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

/* Nobody accepts: whoever asks whether somebody is there stays in the queue, and a full one would hold him up. */
enum { QUEUE = 512 };

bool listen_on_loopback(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return is_loopback_up(fd) && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, QUEUE) == 0;
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
	if (fault_value(program, "after", text, sizeof(text)))
		while (access(text, F_OK) < 0)
			sleep_ms(10);
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
