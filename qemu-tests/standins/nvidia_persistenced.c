// SPDX-License-Identifier: Apache-2.0
/*
 * nvidia-persistenced. The parent ends when the daemon has set itself up, with 0 also when every GPU failed to open:
 * only the lines per device tell. Opens the GPUs one after another and holds them. Own faults:
 *   no_cfg=1   libnvidia-cfg.so.1 is missing    no_rpc=1   no /etc/netconfig, as where there is none
 *   fabric_wait_ms=N   how long it waits for the NVLink fabric, each GPU (300; the real one waits 30 s)
 */
#include "nvidia.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define TRANSPORTS "/etc/netconfig"
#define FOLDER "/var/run/nvidia-persistenced"
#define PID_FILE FOLDER "/nvidia-persistenced.pid"
#define SOCKET FOLDER "/socket"

enum { FABRIC_NOT_READY = 0x89, FABRIC_WAIT_MS = 300 };

static struct gpu gpus[GPUS_MAX];
static int gpu_count;
static bool verbose, uvm;

#define say_verbose(...) \
	do { \
		if (verbose) \
			syslog(__VA_ARGS__); \
	} while (0)

static bool is_told(const char *fault)
{
	long value;

	return fault_number(program, fault, &value) && value;
}

/* Whatever the daemon owned goes with it. */
static void shut_down(int status)
{
	unlink(SOCKET);
	unlink(PID_FILE);
	syslog(LOG_NOTICE, "Shutdown (%d)", getpid());
	exit(status);
}

static void on_term(int number)
{
	say_verbose(LOG_DEBUG, "Received signal %d", number);
	say_verbose(LOG_INFO, "Socket closed.");
	say_verbose(LOG_INFO, "PID file unlocked.");
	say_verbose(LOG_INFO, "PID file closed.");
	shut_down(0);
}

static bool take_pid_file(void)
{
	char text[32];

	if (mkdir(FOLDER, 0755) < 0) {
		if (errno != EEXIST)
			syslog(LOG_WARNING, "Failed to create directory %s: %m", FOLDER);
		say_verbose(LOG_INFO, "Directory %s will not be removed on exit", FOLDER);
	}
	if (access(FOLDER, R_OK | W_OK) < 0) {
		syslog(LOG_ERR, "Unable to access %s: %m", FOLDER);
		return false;
	}
	int fd = open(PID_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0) {
		syslog(LOG_ERR, "Failed to open PID file: %m");
		return false;
	}
	if (lockf(fd, F_TLOCK, 0) < 0) {
		syslog(LOG_ERR, "Failed to lock PID file: %m");
		return false;
	}
	int length = snprintf(text, sizeof(text), "%d\n", getpid());

	if (ftruncate(fd, 0) == 0 && write(fd, text, (size_t)length) == length)
		return true;
	syslog(LOG_ERR, "Failed to update PID file: %m");
	return false;
}

/* The real daemon asks once a second, and goes on without UVM persistence when the fabric does not come. */
static bool wait_for_fabric(void)
{
	long limit = FABRIC_WAIT_MS, start = now_ms();

	fault_number(program, "fabric_wait_ms", &limit);
	while (has_fabric() && !is_fabric_up()) {
		if (now_ms() - start >= limit)
			return false;
		sleep_ms(20);
	}
	return true;
}

static void enable_uvm(const struct gpu *gpu)
{
	if (wait_for_fabric())
		syslog(LOG_INFO, "device %s - Enabled UVM Persistence mode.", gpu->place);
	else
		syslog(LOG_WARNING, "device %s - Could not Enable UVM Persistence mode becausethe NVLink fabric is not ready: 0x%x",
		       gpu->place, FABRIC_NOT_READY);
}

/* What the module says to a client of another release; the open of a GPU then fails. */
static bool is_of_our_release(void)
{
	char text[4096], line[256];

	if (read_text("/proc/driver/nvidia/version", text, sizeof(text)) < 0 || strstr(text, "  " DRIVER_VERSION "  "))
		return true;
	snprintf(line, sizeof(line), "line API mismatch: the client has the version %s, but", DRIVER_VERSION);
	write_text("/proc/nvidia-lab", line, 0600);
	write_text("/proc/nvidia-lab", "line this kernel module has another version.  Please", 0600);
	return false;
}

static bool attach_devices(void)
{
	bool is_ours = is_of_our_release();

	gpu_count = list_gpus(gpus);
	if (gpu_count < 0) {
		syslog(LOG_ERR, "Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist, "
				"and that user %u has read and write permissions for those files.", getuid());
		return false;
	}
	if (gpu_count < 1) {
		syslog(LOG_ERR, "Unable to find any NVIDIA devices");
		return false;
	}
	make_nodes(gpus, gpu_count);
	for (int i = 0; i < gpu_count; i++) {
		say_verbose(LOG_DEBUG, "device %s - registered", gpus[i].place);
		if (!is_ours || !open_gpu(&gpus[i])) {
			syslog(LOG_ERR, "device %s - failed to open.", gpus[i].place);
			continue;	/* and the daemon goes on as if nothing had happened */
		}
		if (uvm)
			enable_uvm(&gpus[i]);
		say_verbose(LOG_NOTICE, "device %s - persistence mode enabled.", gpus[i].place);
	}
	return true;
}

static bool offer_service(void)
{
	if (is_told("no_rpc") || access(TRANSPORTS, R_OK) < 0 || !listen_at(SOCKET)) {
		syslog(LOG_ERR, "Failed to create RPC service");
		return false;
	}
	say_verbose(LOG_INFO, "Local RPC services initialized");
	return true;
}

static void become_daemon(int ready)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	umask(0);
	setsid();
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	openlog("nvidia-persistenced", 0, LOG_DAEMON);
	setlogmask(LOG_UPTO(verbose ? LOG_DEBUG : LOG_NOTICE));
	say_verbose(LOG_INFO, "Verbose syslog connection opened");
	signal(SIGTERM, on_term);
	signal(SIGINT, on_term);
	if (chdir("/") < 0 || !take_pid_file())
		exit(1);
	syslog(LOG_NOTICE, "Started (%d)", getpid());
	suffer_early_faults();
	if (is_told("no_cfg")) {
		syslog(LOG_ERR, "Failed to open libnvidia-cfg.so.1: libnvidia-cfg.so.1: cannot open shared object file: "
				"No such file or directory");
		shut_down(1);
	}
	if (!attach_devices() || !offer_service())
		shut_down(1);
	if (write(ready, "0", 1) != 1)
		shut_down(1);
	close(ready);
	stay_forever();
}

int persistenced_main(int argc, char **argv)
{
	int pipe_ends[2];
	char status = '1';

	verbose = has_option(argc, argv, "--verbose") || has_option(argc, argv, "-V");
	uvm = has_option(argc, argv, "--uvm-persistence-mode");
	if (pipe(pipe_ends) < 0)
		return 1;
	pid_t child = fork();

	if (child == 0) {
		close(pipe_ends[0]);
		become_daemon(pipe_ends[1]);
	}
	close(pipe_ends[1]);
	if (child > 0 && read(pipe_ends[0], &status, 1) == 1 && status == '0')
		return 0;
	fprintf(stderr, "nvidia-persistenced failed to initialize. Check syslog for more details.\n");
	return 1;
}
