// SPDX-License-Identifier: Apache-2.0
/* nv-hostengine, which leaves a daemon behind, and dcgm-exporter, which stays where it was started. */
#include "nvidia.h"
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define PID_FILE "/var/run/nvhostengine.pid"

enum { ENGINE_PORT = 5555, EXPORTER_PORT = 9400 };

static bool has_account(const char *name)
{
	static char text[TEXT_MAX];
	size_t length = strlen(name);

	if (read_text("/etc/passwd", text, sizeof(text)) < 0)
		return false;
	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, name, length) && line[length] == ':')
			return true;
	return false;
}

int hostengine_main(int argc, char **argv)
{
	const char *account = option(argc, argv, "--service-account"), *pid_file = option(argc, argv, "--pid");
	char text[32];

	openlog("nv-hostengine", LOG_PID, LOG_DAEMON);
	suffer_early_faults();
	if (account && !has_account(account)) {
		complain("Err: failed to find the service account %s", account);
		return 1;
	}
	if (!listen_on_loopback(ENGINE_PORT)) {
		complain("Err: Failed to start DCGM Server: -7 (%s)", strerror(errno));
		return 1;
	}
	printf("Started host engine version %s using port number: %d\n", "4.4.1", ENGINE_PORT);
	fflush(stdout);
	if (!has_option(argc, argv, "-n") && fork() > 0)
		_exit(0);
	setsid();
	snprintf(text, sizeof(text), "%d\n", getpid());
	write_text(pid_file ? pid_file : PID_FILE, text, 0644);
	stay_forever();
	return 0;
}

int exporter_main(int argc, char **argv)
{
	const char *counters = option(argc, argv, "-f");

	openlog("dcgm-exporter", LOG_PID, LOG_DAEMON);
	suffer_early_faults();
	fprintf(stderr, "level=INFO msg=\"Starting dcgm-exporter\"\n");
	if (counters && access(counters, R_OK) < 0) {
		fprintf(stderr, "level=ERROR msg=\"Could not read metrics file '%s'\" error=\"%s\"\n", counters, strerror(errno));
		return 1;
	}
	if (!listen_on_loopback(EXPORTER_PORT)) {
		fprintf(stderr, "level=ERROR msg=\"Failed to listen\" error=\"%s\"\n", strerror(errno));
		return 1;
	}
	fprintf(stderr, "level=INFO msg=\"Starting webserver\" address=:%d\n", EXPORTER_PORT);
	stay_forever();
	return 0;
}
