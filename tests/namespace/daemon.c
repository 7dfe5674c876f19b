// SPDX-License-Identifier: Apache-2.0
/*
 * Daemons of the namespace tier, told apart by the name they are started as. /etc/daemons has words for what goes wrong:
 *   fails=BDF          persistenced cannot open that GPU, and says success all the same
 *   persistenced-talks it says long things without end, and never that a GPU is attached
 *   persistenced-breeds it leaves one orphan after another to PID 1, and never says that a GPU is attached
 *   slow-engine        the host engine takes half a minute to go into the background
 *   nameless-engine    the host engine writes no PID file
 *   exporter-ends      the exporter ends the first time it is started
 *   metrics-flood      the agent beside the pod prints and logs without end
 *   metrics-port-taken it ends as where another program has its port
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"

static char words[1024];
static const char *pid_file;

static void read_words(void)
{
	int fd = open("/etc/daemons", O_RDONLY);

	if (fd >= 0 && read(fd, words, sizeof(words) - 1) < 0)
		_exit(2);
}

static void on_term(int number)
{
	syslog(LOG_INFO, "stopped by signal %d", number);
	if (pid_file)
		unlink(pid_file);
	_exit(0);
}

static void write_pid(void)
{
	FILE *file = fopen(pid_file, "w");

	if (!file)
		_exit(3);
	fprintf(file, "%d\n", getpid());
	fclose(file);
}

static void stay(void)
{
	for (;;)
		pause();
}

static void talk(void)
{
	static char words_without_end[4000];

	memset(words_without_end, 'x', sizeof(words_without_end) - 1);
	for (;;)
		syslog(LOG_INFO, "%s", words_without_end);
}

static void breed(void)
{
	for (;;) {
		pid_t child = fork();

		if (child == 0)
			_exit(fork() < 0);
		waitpid(child, NULL, 0);
	}
}

static void attach_all(void)
{
	struct dirent **names;
	int count = scandir(DEVICES, &names, NULL, alphasort);

	for (int i = 0; i < count; i++) {
		const char *place = names[i]->d_name;

		if (*place == '.')
			continue;
		syslog(LOG_DEBUG, "device %s - registered", place);
		if (strstr(words, place))
			syslog(LOG_ERR, "device %s - failed to open.", place);
		else
			syslog(LOG_NOTICE, "device %s - persistence mode enabled.", place);
	}
	syslog(LOG_INFO, "Local RPC services initialized");
}

/* The process that was started ends when the daemon is up. */
static void go_to_background(void)
{
	int ends[2];
	char byte;

	if (pipe(ends) < 0)
		_exit(4);
	if (fork() > 0) {
		close(ends[1]);
		_exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);
	}
	close(ends[0]);
	setsid();
	if (!strstr(words, "nameless-engine") || strstr(pid_file, "persistenced"))
		write_pid();
	if (strstr(words, "persistenced-talks"))
		talk();
	if (strstr(words, "persistenced-breeds"))
		breed();
	if (strstr(pid_file, "persistenced"))
		attach_all();
	else if (strstr(words, "slow-engine"))
		sleep(30);
	if (write(ends[1], "0", 1) != 1)
		_exit(5);
	close(ends[1]);
}

/* To its own output, which PID 1 reads, and to the log, as fast as it gets rid of it. */
static void flood(void)
{
	for (unsigned long i = 0;; i++) {
		printf("metrics: flood %lu\n", i);
		fflush(stdout);
		syslog(LOG_INFO, "flood %lu", i);
	}
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/') + 1;
	int first;

	(void)argc;
	read_words();
	openlog(name, 0, LOG_DAEMON);
	signal(SIGTERM, on_term); /* before it says that it is up: whoever reads that may stop it at once */
	if (!strcmp(name, "nvidia-persistenced")) {
		pid_file = "/var/run/nvidia-persistenced/nvidia-persistenced.pid";
		go_to_background();
		stay();
	} else if (!strcmp(name, "nv-hostengine")) {
		pid_file = "/run/nv-hostengine/nv-hostengine.pid";
		go_to_background();
		stay();
	} else if (!strcmp(name, "dcgm-exporter")) {
		printf("level=INFO msg=\"Starting webserver\"\n");
		fflush(stdout);
		first = open("/run/dcgm-exporter/started", O_CREAT | O_EXCL | O_WRONLY, 0600) >= 0;
		if (first && strstr(words, "exporter-ends")) {
			usleep(300000);
			return 1;
		}
		stay();
	} else if (!strcmp(name, "nvrc-metrics")) {
		if (strstr(words, "metrics-flood"))
			flood();
		if (strstr(words, "metrics-port-taken"))
			return EADDRINUSE;
		stay();
	}
	return 64;
}
