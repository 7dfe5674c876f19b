// SPDX-License-Identifier: Apache-2.0
/* What a machine meets in days, in a minute: orphans, a flood of its log, clients; and what PID 1 holds meanwhile. */
#include "prober.h"
#include "common.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define INIT "1"
#define BESIDE "nvrc-metrics"

/* A number of a process's file, in its own unit; -1 where it is not told. */
static long field(const char *pid, const char *file, const char *name)
{
	char path[64], text[8192];

	snprintf(path, sizeof(path), "/proc/%.16s/%s", pid, file);
	char *found = read_text(path, text, sizeof(text)) > 0 ? strstr(text, name) : NULL;

	return found ? atol(found + strlen(name)) : -1;
}

static int count_entries(const char *path)
{
	DIR *folder = opendir(path);
	int count = folder ? 0 : -1;

	for (struct dirent *entry; folder && (entry = readdir(folder));)
		count += *entry->d_name != '.';
	if (folder)
		closedir(folder);
	return count;
}

/* `beside` becomes the folder of the agent beside the pod, if that runs: the child of PID 1, not its own. `share` is what
 * it and its own child hold of the machine's memory, in KiB: a page of several processes counts for each by its part. */
static int count_processes(int *zombies, long *share, char *beside, size_t size)
{
	char path[64], text[1024];
	DIR *folder = opendir("/proc");
	int count = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		snprintf(path, sizeof(path), "/proc/%.16s/stat", entry->d_name);
		if (!isdigit((unsigned char)*entry->d_name) || read_text(path, text, sizeof(text)) <= 0)
			continue;
		char *after = strrchr(text, ')');

		count++;
		*zombies += after && after[1] == ' ' && after[2] == 'Z';
		if (!after || !strstr(text, "(" BESIDE ")"))
			continue;
		*share += field(entry->d_name, "smaps_rollup", "Pss:");
		if (atoi(after + 4) == 1)
			snprintf(beside, size, "%.16s", entry->d_name);
	}
	if (folder)
		closedir(folder);
	return count;
}

void do_census(const struct line *line)
{
	char beside[64] = "", more[96] = "", path[80];
	long share = 0;
	int zombies = 0, processes = count_processes(&zombies, &share, beside, sizeof(beside));

	(void)line;
	if (*beside) {
		snprintf(path, sizeof(path), "/proc/%.16s/fd", beside);
		snprintf(more, sizeof(more), " beside_rss=%ld beside_pss=%ld beside_descriptors=%d", field(beside, "status", "VmRSS:"),
			 share, count_entries(path));
	}
	tell("probe: census rss=%ld anon=%ld descriptors=%d threads=%ld zombies=%d processes=%d%s\n", field(INIT, "status", "VmRSS:"),
	     field(INIT, "status", "RssAnon:"), count_entries("/proc/" INIT "/fd"), field(INIT, "status", "Threads:"), zombies,
	     processes, more);
}

/* Each outlives its parent, because it waits for the end of the pipe until that is gone. */
void do_orphans(const struct line *line)
{
	long wanted = atol(word(line, 1));
	int gate[2];

	errno = 0;
	pid_t parent = pipe(gate) == 0 ? fork() : -1;

	if (parent == 0) {
		close(gate[1]);
		for (long i = 0; i < wanted; i++)
			if (fork() == 0) {
				char unused;

				_exit(read(gate[0], &unused, 1) == 0 ? 0 : 1);
			}
		_exit(0);
	}
	if (parent > 0) {
		waitpid_retry(parent);
		close(gate[0]);
		close(gate[1]);
	}
	report("orphans", word(line, 1), parent > 0, -1);
}

static bool reach(int fd, const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 5 };

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0;
}

void do_flood(const struct line *line)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	long wanted = atol(word(line, 1)), sent = 0;
	char text[128];

	if (reach(fd, "/dev/log"))
		for (long i = 1; i <= wanted; i++) {
			int length = snprintf(text, sizeof(text), "<30>prober[%d]: flood message %ld of %ld", getpid(), i, wanted);

			if (send(fd, text, (size_t)length, MSG_NOSIGNAL) != length)
				break;	/* one refusal of 5 s says enough */
			sent++;
		}
	report("flood", word(line, 1), sent == wanted, -1);
	close(fd);
}

/* Of three one reads what it is told, one hangs up at once, and one stays for a while and never reads. */
static void send_clients(const struct line *line, const char *what, int family, bool (*reach_it)(int fd, const char *where))
{
	enum { SILENT = 16 };
	long wanted = atol(word(line, 2)), served = 0;
	int silent[SILENT], held = 0;
	char text[65536];

	for (long i = 0; i < wanted; i++) {
		int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool is_there = reach_it(fd, word(line, 1));

		if (i % 3 == 0 && is_there)
			served += read(fd, text, sizeof(text)) > 0;
		if (i % 3 == 2 && held < SILENT)
			silent[held++] = fd;
		else
			close(fd);
	}
	while (held)
		close(silent[--held]);
	report(what, word(line, 1), served == (wanted + 2) / 3, -1);
}

/* Of the control socket. */
void do_clients(const struct line *line)
{
	send_clients(line, "clients", AF_UNIX, reach);
}

static bool ask_page(int fd, const char *port)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\n\r\n";
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct timeval limit = { .tv_sec = 10 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
	       send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) == sizeof(request) - 1;
}

/* Of the metrics. */
void do_scrapers(const struct line *line)
{
	send_clients(line, "scrapers", AF_INET, ask_page);
}

/* Down and up again, as often as that. */
void do_flap(const struct line *line)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool is_good = fd >= 0;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", word(line, 1));
	is_good = is_good && ioctl(fd, SIOCGIFFLAGS, &request) == 0;
	for (long i = 2 * atol(word(line, 2)); is_good && i > 0; i--) {
		request.ifr_flags ^= IFF_UP;
		is_good = ioctl(fd, SIOCSIFFLAGS, &request) == 0;
	}
	report("flap", word(line, 1), is_good, -1);
	if (fd >= 0)
		close(fd);
}

/* Takes all memory there is, and offers itself to the kernel before anybody else. */
void do_hog(const struct line *line)
{
	enum { PIECE = 4 << 20 };
	long start = now_ms();
	pid_t child = fork();

	(void)line;
	if (child == 0) {
		if (!write_text("/proc/self/oom_score_adj", "1000", 0600))
			_exit(1);
		while (mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) != MAP_FAILED)
			;
		_exit(2);
	}
	int status = child > 0 ? waitpid_retry(child) : -1;

	errno = 0;
	report("hog", "memory", status == 128 + SIGKILL, now_ms() - start);
}
