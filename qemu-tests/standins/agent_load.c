// SPDX-License-Identifier: Apache-2.0
/* The load that tests put on whoever is PID 1: orphans in numbers, and a flood of syslog. */
#include "agent.h"
#include "common.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ORPHANS_PER_PARENT = 100, ZOMBIE_WAIT_MS = 5000 };

static int count_zombies(void)
{
	char path[64], stat_line[1024];
	DIR *folder = opendir("/proc");
	int zombies = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/stat", entry->d_name);
		char *after = read_text(path, stat_line, sizeof(stat_line)) > 0 ? strrchr(stat_line, ')') : NULL;

		zombies += after && after[1] == ' ' && after[2] == 'Z';
	}
	if (folder)
		closedir(folder);
	return zombies;
}

/* The children outlive their parent because they wait for the end of `gate`; `alive` ends when the last one is gone. */
static long make_orphans(long count, const int gate[2], const int alive[2])
{
	long made = 0;

	while (made < count) {
		long batch = count - made < ORPHANS_PER_PARENT ? count - made : ORPHANS_PER_PARENT;
		pid_t parent = fork();

		if (parent < 0)
			return made;
		if (parent == 0) {
			close(gate[1]);
			close(alive[0]);
			for (long i = 0; i < batch; i++)
				if (fork() == 0) {
					char unused;

					_exit(read(gate[0], &unused, 1) == 0 ? 0 : 1);
				}
			_exit(0);
		}
		waitpid(parent, NULL, 0);
		made += batch;
	}
	return made;
}

void storm_of_orphans(long count)
{
	int gate[2], alive[2], zombies;
	char unused;
	long start = now_ms(), made = 0;

	while (made < count) {	/* in portions, so that the storm does not run into the limit on processes */
		long portion = count - made < 1000 ? count - made : 1000;

		if (pipe(gate) < 0 || pipe(alive) < 0)
			break;
		long got = make_orphans(portion, gate, alive);

		made += got;
		close(gate[0]);
		close(gate[1]);
		close(alive[1]);
		if (read(alive[0], &unused, 1) != 0)
			break;
		close(alive[0]);
		if (got < portion)
			break;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	for (long until = now_ms() + ZOMBIE_WAIT_MS; (zombies = count_zombies()) && now_ms() < until; sleep_ms(20))
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	tell("agent: orphans started=%ld zombies=%d ms=%ld\n", made, zombies, now_ms() - start);
}

void flood_log(long count)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	struct timeval limit = { .tv_sec = 5 };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	long sent = 0, failed = 0, start = now_ms();
	char line[128];

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		tell("agent: flood cannot reach /dev/log: %s\n", strerror(errno));
	for (long i = 1; i <= count && failed < 10; i++) {	/* ten refusals of 5 s each are proof enough */
		int length = snprintf(line, sizeof(line), "<30>agent[%d]: flood message %ld of %ld", getpid(), i, count);

		if (send(fd, line, (size_t)length, MSG_NOSIGNAL) == length)
			sent++;
		else
			failed++;
	}
	tell("agent: flood sent=%ld failed=%ld ms=%ld\n", sent, failed, now_ms() - start);
	close(fd);
}
