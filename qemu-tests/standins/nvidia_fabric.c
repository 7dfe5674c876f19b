// SPDX-License-Identifier: Apache-2.0
/*
 * nv-fabricmanager and nvlsm. Fabric Manager reads the configuration given with -c, and ends with 0 when an item of it
 * is unusable, as the real one does. On a machine without NVSwitch functions (the fifth NVLink generation) it wants the
 * subnet manager's socket first. Own faults:
 *   start_ms=N   time from start to the marker in syslog (100)   no_marker=1   never prints it   refuse=1   fabric fails
 */
#include "nvidia.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define RUN "/var/run/nvidia-fabricmanager"
#define PID_FILE RUN "/nv-fabricmanager.pid"
#define SUBNET_SOCKET RUN "/fm_sm_ipc.socket"

enum { START_MS = 100, PORT = 6666, LONG_WAIT_MS = 10000 };

static char config[TEXT_MAX];
static bool use_syslog;
static FILE *log_file;

/* KEY=VALUE at the start of a line; the last one counts. */
static const char *item(const char *key, const char *otherwise)
{
	static char values[16][1024];
	static int next;
	char *value = values[next++ % 16];
	size_t length = strlen(key);

	snprintf(value, sizeof(*values), "%s", otherwise);
	for (const char *line = config; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, key, length) && line[length] == '=')
			snprintf(value, sizeof(*values), "%.*s", (int)strcspn(line + length + 1, "\r\n"), line + length + 1);
	return value;
}

static void note(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(int priority, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	if (use_syslog)
		vsyslog(priority, format, values);
	else if (log_file) {
		vfprintf(log_file, format, values);
		fputc('\n', log_file);
		fflush(log_file);
	}
	va_end(values);
}

/* The real program says so and ends with 0. */
static void reject(const char *key)
{
	complain("fabric manager config file item: %s has an invalid value", key);
	exit(0);
}

static bool is_one_of(const char *value, const char *const *allowed)
{
	for (; *allowed; allowed++)
		if (!strcmp(value, *allowed))
			return true;
	return false;
}

static void check_items(void)
{
	static const char *const flags[] = { "0", "1", NULL }, *const modes[] = { "0", "1", "2", NULL };
	static const char *const rails[] = { "greedy", "symmetric", "", NULL };

	if (!is_one_of(item("DAEMONIZE", "1"), flags))
		reject("DAEMONIZE");
	if (!is_one_of(item("LOG_USE_SYSLOG", "0"), flags))
		reject("LOG_USE_SYSLOG");
	if (!is_one_of(item("FABRIC_MODE", "0"), modes))
		reject("FABRIC_MODE");
	if (!is_one_of(item("PARTITION_RAIL_POLICY", ""), rails))
		reject("PARTITION_RAIL_POLICY");
}

static void open_log(void)
{
	const char *path = item("LOG_FILE_NAME", "/var/log/fabricmanager.log");

	use_syslog = !strcmp(item("LOG_USE_SYSLOG", "0"), "1");
	if (use_syslog)
		return;
	log_file = fopen(path, "a");
	if (!log_file)
		reject("LOG_FILE_NAME");
}

static void check_machine(void)
{
	const char *topology = item("TOPOLOGY_FILE_PATH", "/usr/share/nvidia/nvswitch");
	struct gpu gpus[GPUS_MAX];
	struct stat folder;

	if (list_gpus(gpus) < 0 && !has_fabric()) {	/* a service VM for NVLink 5 has ports and no driver */
		complain("failed to find any NVIDIA device; is the driver loaded?");
		exit(1);
	}
	if (stat(topology, &folder) < 0 || !S_ISDIR(folder.st_mode)) {
		complain("failed to open fabric topology file in %s: %s", topology, strerror(errno));
		exit(1);
	}
	if (count_switches())
		return;
	for (long start = now_ms(); access(SUBNET_SOCKET, F_OK) < 0; sleep_ms(20))
		if (now_ms() - start > LONG_WAIT_MS) {
			complain("request to query NVSwitch device information from NVSwitch driver failed with error:"
				 "WARNING Nothing to do [NV_WARN_NOTHING_TO_DO]");
			exit(1);
		}
}

static void come_up(void)
{
	const char *socket_path = item("FM_CMD_UNIX_SOCKET_PATH", "");
	long start_ms = START_MS, told;

	note(LOG_INFO, "Fabric Manager version is : %s, fabric mode %s, rail policy %s", DRIVER_VERSION, item("FABRIC_MODE", "0"),
	     item("PARTITION_RAIL_POLICY", ""));
	if (!listen_on_loopback(PORT)) {
		complain("failed to bind to 127.0.0.1:%d: %s", PORT, strerror(errno));
		exit(1);
	}
	fault_number(program, "start_ms", &start_ms);
	sleep_ms(start_ms);
	if (fault_number(program, "refuse", &told) && told) {
		note(LOG_ERR, "failed to configure the NVSwitch fabric");
		exit(1);
	}
	if (*socket_path && !listen_at(socket_path)) {
		complain("fabric manager config file item: FM_CMD_UNIX_SOCKET_PATH has an invalid value");
		exit(0);
	}
	mark_fabric_up();
	if (fault_number(program, "no_marker", &told) && told)
		return;
	note(LOG_INFO, "FM starting NvLink Inband");
	note(LOG_INFO, "Successfully configured all the available NVSwitches to route GPU NVLink traffic. "
		       "NVLink Peer-to-Peer support will be enabled once the GPUs are successfully registered with the NVLink fabric.");
}

/* The daemon writes its PID file; one that stays in the foreground has none. */
static void detach(void)
{
	char text[32];

	if (!strcmp(item("DAEMONIZE", "1"), "0"))
		return;
	if (fork() > 0)
		_exit(0);
	setsid();
	make_folders(RUN, 0755);
	snprintf(text, sizeof(text), "%d\n", getpid());
	write_text(PID_FILE, text, 0644);
}

int fabricmanager_main(int argc, char **argv)
{
	const char *path = option(argc, argv, "-c");

	openlog("nv-fabricmanager", LOG_PID, LOG_DAEMON);
	suffer_early_faults();
	if (!path || read_text(path, config, sizeof(config)) < 0) {
		complain("failed to open fabric manager config file %s: %s", path ? path : "(none given)", strerror(errno));
		return 1;
	}
	check_items();
	open_log();
	check_machine();
	detach();
	come_up();
	stay_forever();
	return 0;
}

int nvlsm_main(int argc, char **argv)
{
	const char *path = option(argc, argv, "-F"), *guid = option(argc, argv, "-g");

	openlog("nvlsm", LOG_PID, LOG_DAEMON);
	setvbuf(stdout, NULL, _IOLBF, 0);
	suffer_early_faults();
	if (path && access(path, R_OK) < 0) {
		complain("nvlsm: cannot open config file %s: %s", path, strerror(errno));
		return 1;
	}
	make_folders(RUN, 0755);
	printf("NVLSM bound to port GUID %s\n", guid ? guid : "(chosen by itself)");
	if (!listen_at(SUBNET_SOCKET)) {
		complain("nvlsm: cannot listen at %s: %s", SUBNET_SOCKET, strerror(errno));
		return 1;
	}
	puts("SUBNET UP");
	stay_forever();
	return 0;
}
